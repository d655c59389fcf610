"""Clipping over both engines equals clipping the full gradients;
a bad gradient in either network skips both.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from electra_dist.train import step as step_module
from electra_dist.zero import clipping, fragments
from electra_dist.zero.engines import Engines
from tests.support.plain import PlainTrainer
from tests.support.processes import run_ranks
from tests.support.small import SEED, by_name, full_parameters, make_config, make_engines, make_step

Gradients = dict[str, torch.Tensor]


def full_gradients(engines: Engines) -> Gradients:
    """Reduced gradients of both networks, without loss scale, by DeepSpeed's own means."""
    from deepspeed.utils import safe_get_full_grad

    return by_name(
        engines, lambda engine, p: safe_get_full_grad(p).float() / clipping.loss_scale(engine)
    )


def largest_relative(got: Gradients, wanted: Gradients) -> float:
    """Largest difference, relative to the largest element of all."""
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    return max(float((got[key] - wanted[key]).abs().max()) for key in wanted) / largest


def compare_gradients(world: Any, cases: dict[str, list[str]]) -> dict[str, list[float]]:
    """For each case the errors of the gradient before clipping, after it, and of both norms."""
    results = {}
    for case, overrides in cases.items():
        config = make_config(*overrides)
        engines = make_engines(config, world)
        seen: list[Gradients] = []

        def spying_clip(
            engines: Engines, *args: Any, seen: list[Gradients] = seen
        ) -> clipping.ClipResult:
            seen.append(full_gradients(engines))
            result = clipping.clip(engines, *args)
            seen.append(full_gradients(engines))
            return result

        step_module.clip = spying_clip
        step, samples = make_step(config, 0, world.rank, world.world_size)
        totals = step_module.train_step(engines, step, config, 1.0, samples)
        plain = PlainTrainer(config, SEED)
        wanted = plain.gradients(list(range(config.train.global_rows)))
        norms = plain.norms(wanted)
        results[case] = [
            largest_relative(seen[0], wanted),
            largest_relative(seen[1], plain.clipped(wanted) if config.optim.clip_norm else wanted),
            abs(float(totals.generator_norm) / norms["generator"] - 1),
            abs(float(totals.discriminator_norm) / norms["discriminator"] - 1),
        ]
    return results


CLIP_CASES = {
    f"stage {stage}, {mode}, {norm}": [
        f"zero.stage={stage}",
        f"optim.clip_mode={mode}",
        f"optim.clip_norm={norm}",
    ]
    for stage, mode, norm in [
        (0, "joint", 1.0),
        (1, "joint", 1.0),
        (2, "joint", 1.0),
        (3, "joint", 1.0),
        (3, "separate", 1.0),
        (3, "joint", 0.0),
        (3, "joint", 1000.0),  # far above the norm: nothing is scaled up
    ]
}
OFFLOAD = "zero.offload_optimizer=true"
CLIP_CASES |= {
    f"stage {stage} offloaded, {norm}": [f"zero.stage={stage}", OFFLOAD, f"optim.clip_norm={norm}"]
    for stage, norm in [(1, 1.0), (2, 1.0), (3, 1.0), (3, 0.0)]
}
CLIP_CASES["one network offloaded"] = ["zero.discriminator.offload_optimizer=true"]
CLIP_CASES["parameters offloaded, separate"] = [
    OFFLOAD,
    "zero.offload_parameters=true",
    "optim.clip_mode=separate",
]


def test_gradients_before_and_after_clipping_equal_the_full_joint_gradient() -> None:
    for errors in run_ranks(compare_gradients, 2, cases=CLIP_CASES):
        for case, found in errors.items():
            assert max(found) < 1e-5, (case, found)


def test_loss_scale_is_taken_out_of_the_norm() -> None:
    cases = {
        f"{mode} {stage}": [
            f"precision.mode={mode}",
            f"zero.stage={stage}",
            "precision.initial_scale_power=8",
        ]
        for mode, stage in [("fp16", 1), ("fp16", 3), ("bf16", 1)]
    }
    cases |= {f"{name}, offloaded": [*overrides, OFFLOAD] for name, overrides in cases.items()}
    for generator, discriminator in [("fp16", "fp32"), ("fp32", "fp16"), ("bf16", "fp16")]:
        modes = [
            f"precision.generator.mode={generator}",
            f"precision.discriminator.mode={discriminator}",
        ]
        cases[f"{generator} and {discriminator}"] = [*modes, "precision.initial_scale_power=8"]
    for errors in run_ranks(compare_gradients, 2, cases=cases):
        for case, found in errors.items():
            assert max(found) < (0.03 if "bf16" in case else 0.005), (case, found)


# --- steps that are skipped -----------------------------------------------------------------------


def skip_and_go_on(world: Any, cases: list[list[Any]]) -> list[list[str]]:
    """Make one network's gradient overflow, then train on; what is wrong, by case."""
    problems = []
    for stage, mode, network, *more in cases:
        overrides = [
            f"zero.stage={stage}",
            f"precision.mode={mode}",
            "precision.initial_scale_power=8",
            *more,
        ]
        # Without sharing, the other network never sees the overflow by itself.
        config = make_config(*overrides, "model.embedding_sharing=none")
        bad = make_config(
            *overrides, "model.embedding_sharing=none", f"train.{network}_weight=3e38"
        )
        engines, wrong = make_engines(config, world), []
        before = full_parameters(engines)
        step, samples = make_step(config, 0, world.rank, world.world_size)
        skipped = step_module.train_step(engines, step, bad, 1.0, samples)
        other = "discriminator" if network == "generator" else "generator"
        if not torch.isfinite(getattr(skipped, f"{other}_norm")):
            wrong.append("the other network overflowed too: nothing is tested")
        if not bool(skipped.skipped):
            wrong.append("not reported as skipped")
        if any(
            not torch.equal(before[key], after) for key, after in full_parameters(engines).items()
        ):
            wrong.append("a parameter changed")
        for name, engine in engines:
            fragments._ensure_state(engine)
            scalars = fragments.read_scalars(engine)
            if scalars["optimizer_steps"] != 0:
                wrong.append(f"the {name}'s optimizer made a step")
            if mode == "fp16" and scalars["loss_scale"]["cur_scale"] != 2.0**7:
                wrong.append(f"the {name}'s loss scale is {scalars['loss_scale']}")
        problems.append(
            [*wrong, *_wrong_afterwards(engines, make_config(*overrides, *_NONE), world)]
        )
    return problems


_NONE = ["model.embedding_sharing=none"]


def _wrong_afterwards(engines: Engines, config: Any, world: Any) -> list[str]:
    """Train on, beside engines that never skipped; the same parameters must come out."""
    untouched = make_engines(config, world)
    for index in (1, 2):
        step, samples = make_step(config, index, world.rank, world.world_size)
        for trained in (engines, untouched):
            totals = step_module.train_step(trained, step, config, 1.0, samples)
            if bool(totals.skipped):
                return [f"step {index} was skipped too"]
    wanted, got = full_parameters(untouched), full_parameters(engines)
    limit = 1e-6 if config.precision.mode != "fp16" else 1e-4  # another loss scale rounds otherwise
    off = max(float((got[key] - wanted[key]).abs().max()) for key in wanted)
    return [f"parameters differ by {off} from a run that never skipped"] if off > limit else []


NETWORK_PAIR = ("generator", "discriminator")
SKIP_CASES = [
    [3, "fp16", "generator"],
    [3, "fp16", "discriminator"],
    [3, "fp32", "generator"],
    [0, "fp32", "discriminator"],
    [1, "bf16", "discriminator"],
    [2, "fp16", "generator"],
    [3, "fp16", "discriminator", OFFLOAD],
    [3, "bf16", "generator", OFFLOAD, "zero.offload_parameters=true"],
    [2, "fp32", "generator", OFFLOAD],
    [1, "fp16", "discriminator", OFFLOAD],
]
SKIP_CASES_FULL = [
    [stage, mode, network, *more]
    for stage in (0, 1, 2, 3)
    for mode in ("fp16", "bf16", "fp32")
    for network in NETWORK_PAIR
    for more in ([], [OFFLOAD])
    if (stage or (mode == "fp32" and not more)) and [stage, mode, network, *more] not in SKIP_CASES
]


def test_overflow_in_either_network_skips_both_and_training_goes_on() -> None:
    for problems in run_ranks(skip_and_go_on, 2, cases=SKIP_CASES):
        assert not any(problems), dict(zip(map(str, SKIP_CASES), problems, strict=True))


@pytest.mark.full
def test_overflow_skips_both_at_every_stage_and_precision() -> None:
    for problems in run_ranks(skip_and_go_on, 2, cases=SKIP_CASES_FULL, timeout=300):
        assert not any(problems), dict(zip(map(str, SKIP_CASES_FULL), problems, strict=True))
