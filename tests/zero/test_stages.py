"""What `config.STAGES` says of a stage is what DeepSpeed does at it: where things lie on two ranks,
and which collectives the micro-batches of a step run.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from electra_dist.config import NETWORKS, Config
from electra_dist.train.step import train_step
from electra_dist.zero.engine import Engine, stage_of
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import stepped_tensors
from tests.support.processes import run_ranks
from tests.support.small import make_config, make_engines, make_step

OFFLOAD = "zero.offload_optimizer=true"
#: So that fp16 skips no step: in one that overflows no weight is sent.
SMALL_SCALE = "precision.initial_scale_power=4"
CASES = {
    f"stage {stage}, {mode}": [f"zero.stage={stage}", f"precision.mode={mode}"]
    for stage in range(4)
    for mode in ("fp32", "bf16", "fp16")
    if stage or mode == "fp32"
} | {
    f"stage {stage}, {mode}, offloaded": [
        f"zero.stage={stage}",
        f"precision.mode={mode}",
        OFFLOAD,
    ]
    for stage in (1, 2, 3)
    for mode in ("fp32", "bf16")
}
#: c10d's operator -> what it does. What the ranks agree on is smaller than `SMALLEST` elements.
KINDS = {
    "allreduce_": "all-reduce",
    "_reduce_scatter_base_": "reduce-scatter",
    "reduce_scatter_": "reduce-scatter",
    "_allgather_base_": "gathering",
    "allgather_": "gathering",
    "allgather_into_tensor_coalesced_": "gathering",
}
SMALLEST = 20


class Collectives(TorchDispatchMode):
    """The kinds of collectives that ran, by micro-batch."""

    def __init__(self, engines: Engines) -> None:
        super().__init__()
        self.kinds: list[set[str]] = [set()]
        step = engines.discriminator.step

        def last_of_a_micro_batch() -> None:
            step()
            self.kinds.append(set())

        engines.discriminator.step = last_of_a_micro_batch  # type: ignore[method-assign]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d" and elements(args[0]) > SMALLEST:
            self.kinds[-1].add(KINDS[func.__name__.partition(".")[0]])
        return func(*args, **(kwargs or {}))


def elements(tensors: Any) -> int:
    if hasattr(tensors, "numel"):
        return int(tensors.numel())
    return sum(elements(tensor) for tensor in tensors)


def shares(engine: Engine) -> dict[str, float]:
    """What this rank holds of the weights and of the moments, as a part of the whole network."""
    parameters: list[Any] = list(engine.module.parameters())
    whole = sum(getattr(p, "ds_numel", p.numel()) for p in parameters)
    held = sum(getattr(p, "ds_tensor", p).numel() for p in parameters)
    stepped = sum(tensor.numel() for tensor in stepped_tensors(engine))
    return {"weights": held / whole, "moments": stepped / whole}


def observe(world: Any, cases: dict[str, list[str]]) -> dict[str, Any]:
    found = {}
    for name, overrides in cases.items():
        config = make_config(*overrides, SMALL_SCALE)
        engines = make_engines(config, world)
        step, samples = make_step(config, 0, world.rank, world.world_size)
        with Collectives(engines) as collectives:
            train_step(engines, step, config, 1.0, samples)
        found[name] = {
            "built": [stage_of(engine).number for _, engine in engines],
            "shares": [shares(engine) for _, engine in engines],
            "optimizers": [type(engine.optimizer).__name__ for _, engine in engines],
            "collectives": [sorted(kinds) for kinds in collectives.kinds],
        }
        engines.destroy()
    return found


@pytest.fixture(scope="module")
def observed() -> dict[str, Any]:
    """By case, on rank 0 of two; two micro-batches per step."""
    found: dict[str, Any] = run_ranks(observe, 2, cases=CASES, timeout=240)[0]
    return found


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, observed: dict[str, Any]) -> tuple[Config, Any]:
    return make_config(*CASES[request.param]), observed[request.param]


def test_weights_and_moments_lie_where_the_stage_says(case: tuple[Config, Any]) -> None:
    config, found = case
    for network, number, part in zip(NETWORKS, found["built"], found["shares"], strict=True):
        stage = config.stage(network)
        assert number == stage.number
        assert part["weights"] == pytest.approx(0.5 if stage.shares_weights else 1, abs=0.02)
        assert part["moments"] == pytest.approx(0.5 if stage.shares_moments else 1, abs=0.02)


def test_the_optimizer_of_stage_1_in_bf16_is_the_one_that_the_stage_says(
    case: tuple[Config, Any],
) -> None:
    config, found = case
    for network, optimizer in zip(NETWORKS, found["optimizers"], strict=True):
        whole = config.stage(network).keeps_whole_fp32_gradients(
            config.precision_mode(network), config.sharding(network).offload_optimizer
        )
        assert (optimizer == "BF16_Optimizer") == whole


def test_the_ranks_send_when_the_stage_says(case: tuple[Config, Any]) -> None:
    config, found = case
    stage = config.stage("discriminator")
    first, last, after = found["collectives"]
    assert not after
    assert (stage.reduction in first) == stage.reduces_every_micro_batch
    assert stage.reduction in last
    assert len({"all-reduce", "reduce-scatter"} & {*first, *last}) == 1
    assert ("gathering" in first) == (stage.gathers_weights == "per micro-batch")
    assert ("gathering" in last) == (stage.gathers_weights != "never")
