"""The window of a checkpoint is saved by name: what it has not is undefined."""

from __future__ import annotations

import json
import math

import pytest
import torch

from electra_dist.objectives.bins import BINS
from electra_dist.parallel.world import World
from electra_dist.runs import metrics
from electra_dist.train.step import StepTotals, sum_shapes
from electra_dist.train.window import Sums, Window
from tests.support.small import make_config


def some_sums() -> Sums:
    histogram = torch.zeros(2 * BINS, dtype=torch.float64)
    histogram[10] = 90.0
    histogram[2 * BINS - 10] = 10.0
    device = [12.0, 3.0, 3.5, 4.0, 50.0, 100.0]
    others = [640.0, 1.0, 2.0, 4.0]
    named = torch.tensor(device + others, dtype=torch.float64)
    return Sums(5, torch.cat([named, histogram]))


def test_the_same_numbers_are_read_back() -> None:
    saved = json.loads(json.dumps(some_sums().to_json()))
    again = Sums.from_json(saved)
    assert again.steps == 5
    assert again.values == some_sums().values
    assert again.losses() == some_sums().losses()
    assert again.losses()[metrics.GENERATOR_LOSS.name] == 3.0


def test_a_sum_that_the_checkpoint_has_not_is_undefined_and_the_others_are_there() -> None:
    saved = some_sums().to_json()
    del saved["values"]["correct"]
    saved["values"]["of_a_later_version"] = 7.0
    losses = Sums.from_json(saved).losses()
    assert math.isnan(losses[metrics.GENERATOR_ACCURACY.name])
    assert losses[metrics.GENERATOR_LOSS.name] == 3.0
    assert losses[metrics.DISCRIMINATOR_LOSS.name] == 0.5


def test_rates_and_padding_follow_from_the_sums() -> None:
    sums = some_sums()
    assert sums.clip_rates() == {
        metrics.GENERATOR_CLIP_RATE.name: 0.4,
        metrics.DISCRIMINATOR_CLIP_RATE.name: 0.8,
    }
    config = make_config()  # 8 rows of 16
    assert sums.padding(config) == 1 - 100 / (5 * 8 * 16)
    losses = sums.losses()
    assert losses[metrics.GENERATOR_TOP5.name] == 3.5 / 4
    assert losses[metrics.GENERATOR_PERPLEXITY.name] == pytest.approx(math.e**3)


def test_a_loss_without_a_perplexity_that_a_number_holds_gives_infinity() -> None:
    sums = some_sums()
    sums.values["generator_loss_sum"] = 4e6
    assert sums.losses()[metrics.GENERATOR_PERPLEXITY.name] == math.inf


def a_step(clipped: tuple[bool, bool], skipped: bool = False) -> StepTotals:
    """Its sums are all 1."""
    sums = {name: torch.ones(shape) for name, shape in sum_shapes().items()}
    norm = torch.ones(())
    return StepTotals(sums, norm, norm, torch.tensor(skipped), torch.tensor(clipped), torch.ones(2))


def test_a_window_that_a_resume_goes_on_with_gives_the_same_rates() -> None:
    steps = [
        a_step((True, False)),
        a_step((True, True)),
        a_step((False, False), skipped=True),
        a_step((True, False)),
    ]
    whole = Window(torch.device("cpu"))
    for step in steps:
        whole.add(step, ())
    before = Window(torch.device("cpu"))
    for step in steps[:2]:
        before.add(step, ())
    saved = json.loads(json.dumps(before.reduced(World()).to_json()))
    after = Window(torch.device("cpu"))
    after.restore(saved, World())
    for step in steps[2:]:
        after.add(step, ())
    rates = after.reduced(World()).clip_rates()
    assert rates == whole.reduced(World()).clip_rates()
    assert list(rates.values()) == [0.75, 0.25]
    assert after.reduced(World()).values == whole.reduced(World()).values


def test_what_the_version_before_did_not_sum_is_undefined_until_the_next_window() -> None:
    saved = some_sums().to_json()
    for name in ("in_top5", "generator_clipped", "discriminator_clipped"):
        del saved["values"][name]
    window = Window(torch.device("cpu"))
    window.restore(saved, World())
    window.add(a_step((True, True)), ())
    sums = window.reduced(World())
    assert all(math.isnan(rate) for rate in sums.clip_rates().values())
    assert math.isnan(sums.losses()[metrics.GENERATOR_TOP5.name])
    assert sums.values["skipped"] == 1
    window.clear()
    window.add(a_step((True, True)), ())
    assert list(window.reduced(World()).clip_rates().values()) == [1, 1]


def test_what_the_first_versions_saved_is_read() -> None:
    """Numbers as a list, and the bins of the one table that there was."""
    saved = {
        "steps": 5,
        "values": [12.0, 3.0, 4.0, 50.0, 100.0, 640.0, 1.0],
        "bins": [10, 2 * BINS - 10],
        "counts": [90.0, 10.0],
    }
    read = Sums.from_json(saved).values
    unknown = {name for name, value in read.items() if math.isnan(value)}
    assert unknown == {"in_top5", "generator_clipped", "discriminator_clipped"}
    assert all(read[name] == some_sums().values[name] for name in read.keys() - unknown)
    assert torch.equal(Sums.from_json(saved).tables["histogram"], some_sums().tables["histogram"])
