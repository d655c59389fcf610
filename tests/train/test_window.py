"""The window of a checkpoint is saved by name: what it has not is undefined."""

from __future__ import annotations

import json
import math

import torch

from electra_dist.objectives.bins import BINS
from electra_dist.runs import metrics
from electra_dist.train.window import Sums


def some_sums() -> Sums:
    histogram = torch.zeros(2 * BINS, dtype=torch.float64)
    histogram[10] = 90.0
    histogram[2 * BINS - 10] = 10.0
    named = torch.tensor([12.0, 3.0, 4.0, 50.0, 100.0, 640.0, 1.0], dtype=torch.float64)
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


def test_what_the_first_versions_saved_is_read() -> None:
    """Numbers as a list, and the bins of the one table that there was."""
    saved = {
        "steps": 5,
        "values": [12.0, 3.0, 4.0, 50.0, 100.0, 640.0, 1.0],
        "bins": [10, 2 * BINS - 10],
        "counts": [90.0, 10.0],
    }
    assert Sums.from_json(saved).values == some_sums().values
    assert torch.equal(Sums.from_json(saved).tables["histogram"], some_sums().tables["histogram"])
