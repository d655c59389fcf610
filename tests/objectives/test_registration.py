"""An objective is one registration: with it alone the networks compute it, the step weighs it, and
window, guard, metrics and checkpoints know it. The gradient stays that of plain PyTorch.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch

from electra_dist.config import Config
from electra_dist.model.inputs import to_device
from electra_dist.model.networks import build_networks
from electra_dist.objectives import OBJECTIVES, objectives, objectives_of
from electra_dist.parallel.world import World
from electra_dist.runs.metrics import all_metrics
from electra_dist.runs.opening.changes import kind_of
from electra_dist.train.divergence.guard import Guard, Place
from electra_dist.train.divergence.signals import Signals
from electra_dist.train.step import evaluate_step, train_step
from electra_dist.train.window import Sums, Window
from tests.support import toy_objective
from tests.support.plain import PlainTrainer, Tensors
from tests.support.processes import run_ranks
from tests.support.small import (
    SEED,
    VOCABULARY,
    full_parameters,
    make_config,
    make_engines,
    make_micro_batch,
    make_step,
)

WEIGHT = 0.25
OVERRIDES = (f"optim.final_lr_fraction={WEIGHT}",)


class PlainWithToy(PlainTrainer):
    """The reference, with the third loss written out by hand."""

    toy_loss = 0.0

    def gradients(self, rows: list[int]) -> Tensors:
        """Those of the two losses, and those of the third added."""
        sums = super().gradients(rows)
        batch, samples = make_micro_batch(rows)
        moved = to_device(batch, "cpu")
        generated = self.networks["generator"](moved, samples)
        discriminator = self.networks["discriminator"]
        hidden = discriminator.encode(generated.shared, generated.corrupted, moved)
        logits = discriminator.head(hidden)
        loss = sum((logits[moved.documents >= 0] ** 2).flatten())
        loss = loss / float(batch.masked_weights.sum())
        (WEIGHT * loss).backward()
        self.toy_loss = float(loss.detach())
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                sums[name] += parameter.grad
                parameter.grad = None
        return sums


def train_with_the_toy(world: Any, *overrides: str) -> dict[str, Any]:
    """Three steps; the largest difference to the reference, and what is reported."""
    with toy_objective.registered():
        config = make_config(*OVERRIDES, *overrides)
        engines = make_engines(config, world)
        plain = PlainWithToy(config, SEED)
        window = Window(world.device)
        losses = []
        for index in range(3):
            step, samples = make_step(config, index, world.rank, world.world_size)
            totals = train_step(engines, step, config, 1.0, samples)
            rows = config.train.global_rows
            plain.train(list(range(index * rows, (index + 1) * rows)))
            window.add(totals, step.micro_batches)
            losses.append(plain.toy_loss)
        trained = full_parameters(engines)
        weights = plain.weights
        held_out = evaluate_step(engines, make_micro_batch([0, 1])[0], config)
        return {
            "difference": max(float((trained[k] - w).abs().max()) for k, w in weights.items()),
            "agreed": float(totals.losses[2]),
            "plain": losses[-1],
            "row": window.reduced(world).losses(),
            "held out": sorted(held_out.sums),
            "both": [float(loss) for loss in totals.losses[:2]],
            "plain both": list(plain.losses[-1]),
        }


@pytest.mark.parametrize("overrides", [[], ["zero.stage=1"]], ids=["stage 3", "stage 1"])
def test_a_third_loss_is_trained_as_by_plain_pytorch(overrides: list[str]) -> None:
    for found in run_ranks(with_overrides, 2, overrides=overrides):
        assert found["difference"] < 1e-5
        assert found["agreed"] == pytest.approx(found["plain"], rel=1e-5)
        assert found["both"] == pytest.approx(found["plain both"], rel=1e-5)
        assert found["row"]["loss/small_logits"] > 0
        assert math.isfinite(found["row"]["toy/sum_of_logits"])
        assert {"toy_loss_sum", "toy_logits", "toy_by_row"} <= set(found["held out"])


def with_overrides(world: Any, overrides: list[str]) -> dict[str, Any]:
    return train_with_the_toy(world, *overrides)


def test_without_its_weight_the_gradient_is_another() -> None:
    """Else the test above would prove nothing."""
    (found,) = run_ranks(with_overrides, 1, overrides=["optim.final_lr_fraction=0"])
    assert found["difference"] > 1e-4


def count_graphs(world: Any) -> dict[str, int]:
    """Graphs and breaks of two compiled steps and validations; none is made after the first."""
    from torch._dynamo.utils import counters

    counters.clear()
    compiler = torch.compile
    traced = partial(compiler, backend="eager")
    with toy_objective.registered(), mock.patch.object(torch, "compile", traced):
        config = make_config(*OVERRIDES, "train.compile=true")
        engines = make_engines(config, world)
        for index in range(2):
            step, samples = make_step(config, index, world.rank, world.world_size)
            train_step(engines, step, config, 1.0, samples)
            evaluate_step(engines, make_micro_batch([index, index + 1])[0], config)
            torch._dynamo.config.error_on_recompile = True
    return {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
    }


def test_it_compiles_into_the_graphs_that_are_there() -> None:
    """As many as `tests/zero/test_compilation.py` counts without it."""
    for found in run_ranks(count_graphs, 2):
        assert found == {"graphs": 19, "breaks": 0}


def judged_losses(config: Config, **_: Any) -> list[float]:
    generator, discriminator = build_networks(config, VOCABULARY, "cpu", SEED)
    arrays, samples = make_micro_batch([0, 1])
    batch = to_device(arrays, "cpu")
    out = generator(batch, samples)
    judged = discriminator(out.shared, batch, out.corrupted, out.replaced)
    assert float(judged.loss_sum.detach()) == float(judged.loss_sums[0].detach())
    return [float(loss) for loss in judged.loss_sums.detach()]


def test_a_network_computes_the_losses_that_are_registered_when_it_is_made() -> None:
    before = judged_losses(make_config())
    with toy_objective.registered():
        during = judged_losses(make_config())
    assert len(before) == 1
    assert len(during) == 2
    assert during[0] == before[0]
    assert judged_losses(make_config()) == before


def test_its_numbers_are_metrics_and_its_weight_may_change_for_the_steps_to_come() -> None:
    plain = all_metrics()
    assert kind_of("train.discriminator_weight") == "future"
    with toy_objective.registered():
        with_toy = all_metrics()
        assert set(with_toy) - set(plain) == {toy_objective.LOSS, toy_objective.LARGEST}
        assert [o.name for o in objectives()] == [
            "masked tokens",
            "replaced tokens",
            "small logits",
        ]
        assert objectives_of("generator") == (OBJECTIVES["masked tokens"],)
    assert all_metrics() == plain


def test_the_guard_hears_it() -> None:
    config = make_config()
    with toy_objective.registered():
        guard = Guard(config.guard, VOCABULARY)
        signals = Signals(torch.device("cpu"))
        guard.hear_validation((1.0, 0.5, 0.1))  # nothing observed yet
        for step, toy in enumerate((0.1, math.nan)):
            totals = _totals((1.0, 0.5, toy))
            signals.send(Place(step, step), totals, searching=False)
            signal = signals.rest()
            assert signal is not None
            guard.observe(signal)
        assert guard.incident is not None
        assert guard.incident.reason == "the toy's loss was not finite"
        saved = json.loads(json.dumps(guard.to_json()))
    resumed = Guard(config.guard, VOCABULARY, saved | {"losses": saved["losses"] + [[1.0, 0.5]]})
    assert resumed.to_json()["losses"] == [[1.0, 0.5]]


def _totals(losses: tuple[float, ...]) -> Any:
    from electra_dist.train.step import StepTotals

    zero = torch.zeros(())
    skipped = torch.zeros((), dtype=torch.bool)
    return StepTotals({}, zero, zero, skipped, skipped.expand(2), torch.tensor(losses))


def test_a_window_without_its_sums_is_taken_up_with_undefined_ones() -> None:
    saved = json.loads(json.dumps(Window(torch.device("cpu")).reduced(World()).to_json()))
    with toy_objective.registered():
        sums = Sums.from_json(saved)
        assert math.isnan(sums.values["toy_loss_sum"])
        assert bool(sums.tables["toy_by_row"].isnan().all())
        assert float(sums.tables["histogram"].sum()) == 0.0
        there = json.loads(json.dumps(Window(torch.device("cpu")).reduced(World()).to_json()))
        assert "toy_by_row" in there["tables"]
    assert "toy_by_row" not in Sums.from_json(there).tables
