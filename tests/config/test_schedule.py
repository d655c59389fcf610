"""The shape of every schedule at its corners."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest

from electra_dist.config import OptimConfig
from electra_dist.config.schedule import DECAYS, lr_factor
from electra_dist.config.training import Schedule


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_rises_to_the_peak_at_the_end_of_the_warmup_and_ends_at_the_final_fraction(
    name: str,
) -> None:
    optim = OptimConfig(warmup_steps=10, schedule=name, final_lr_fraction=0.1, decay_steps=20)  # type: ignore[arg-type]
    factors = [lr_factor(step, 100, optim) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == pytest.approx(1.0)
    assert max(factors) == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.1)
    assert all(a < b for a, b in itertools.pairwise(factors[:11]))
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_midpoints_follow_the_formulas() -> None:
    linear = OptimConfig(warmup_steps=0, schedule="linear")
    cosine = OptimConfig(warmup_steps=0, schedule="cosine")
    stable = OptimConfig(warmup_steps=0, schedule="wsd", decay_steps=20)
    assert lr_factor(25, 100, linear) == pytest.approx(0.75)
    assert lr_factor(25, 100, cosine) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert lr_factor(79, 100, stable) == 1.0
    assert lr_factor(90, 100, stable) == pytest.approx(0.5)


def test_every_schedule_that_can_be_asked_for_has_a_decay_from_one_to_zero() -> None:
    assert set(DECAYS) == set(get_args(Schedule))
    for decay in DECAYS.values():
        assert (decay(0.0), decay(1.0)) == (1.0, 0.0)
