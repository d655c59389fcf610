"""The update-to-weight ratio, against weights copied before and after the step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from electra_dist.config import NETWORKS
from electra_dist.train.step import train_step
from electra_dist.zero import updates
from electra_dist.zero.updates import update_ratios
from tests.support.plain import PlainTrainer
from tests.support.processes import run_ranks
from tests.support.small import SEED, full_parameters, make_config, make_engines, make_step

STEPS = 3


def norm_of(weights: dict[str, torch.Tensor], network: str) -> float:
    squares = (w.double().square().sum() for name, w in weights.items() if name.startswith(network))
    return math.sqrt(float(sum(squares)))


def ratios_by_copies(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> list[float]:
    change = {name: after[name].double() - before[name].double() for name in after}
    return [norm_of(change, network) / norm_of(after, network) for network in NETWORKS]


def compare(world: Any, cases: dict[str, list[str]]) -> dict[str, dict[str, list[float]]]:
    """What is found after each of some steps, by each case, and by plain PyTorch."""
    updates._BATCH_ELEMENTS = 100  # parameters are cut, and put together
    results: dict[str, dict[str, list[float]]] = {}
    for case, overrides in cases.items():
        config = make_config(*overrides, "optim.generator.lr=0.002")
        engines = make_engines(config, world)
        plain = PlainTrainer(config, SEED)
        rows = config.train.global_rows
        found: list[float] = []
        wanted: list[float] = []
        for index in range(STEPS):
            step, samples = make_step(config, index, world.rank, world.world_size)
            totals = train_step(engines, step, config, 0.5, samples)
            found += update_ratios(engines, config, totals.skipped).tolist()
            before = {name: weight.clone() for name, weight in plain.weights.items()}
            plain.train(list(range(index * rows, (index + 1) * rows)), 0.5)
            wanted += ratios_by_copies(before, plain.weights)
        results[case] = {"found": found, "wanted": wanted}
        engines.destroy()
    return results


CASES = {f"stage {stage}": [f"zero.stage={stage}"] for stage in (0, 1, 2, 3)}
CASES |= {
    "stage 1, bf16": ["zero.stage=1", "precision.mode=bf16"],
    "stage 3, offloaded": ["zero.stage=3", "zero.offload_optimizer=true"],
    "stage 2, without decay": ["zero.stage=2", "optim.weight_decay=0"],
}


def test_ratios_equal_those_of_copied_weights_at_every_stage() -> None:
    for rank in run_ranks(compare, 2, cases=CASES):
        for case, values in rank.items():
            rel = 0.02 if "bf16" in case else 1e-4
            assert values["found"] == pytest.approx(values["wanted"], rel=rel), case
            assert min(values["found"]) > 1e-4, case


def skip_then_train(world: Any, stage: int) -> list[list[float]]:
    """Ratios after a step that is skipped, and after one that trains."""
    overrides = [f"zero.stage={stage}", "model.embedding_sharing=none"]
    config = make_config(*overrides)
    bad = make_config(*overrides, "train.generator_weight=3e38")
    engines = make_engines(config, world)
    found = []
    for index, one in enumerate((config, bad, config)):
        step, samples = make_step(config, index, world.rank, world.world_size)
        before = full_parameters(engines)
        totals = train_step(engines, step, one, 1.0, samples)
        ratios = update_ratios(engines, one, totals.skipped).tolist()
        found += [ratios, ratios_by_copies(before, full_parameters(engines))]
    return found


@pytest.mark.parametrize("stage", [0, 3])
def test_a_skipped_step_has_moved_nothing(stage: int) -> None:
    for first, first_by_copies, skipped, by_copies, last, last_by_copies in run_ranks(
        skip_then_train, 2, stage=stage
    ):
        assert first == pytest.approx(first_by_copies, rel=1e-4)
        assert skipped == by_copies == [0.0, 0.0]
        assert last == pytest.approx(last_by_copies, rel=1e-4)
