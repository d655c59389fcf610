"""Bands: where a run with another seed lies, against numpy and against drawn runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from electra_dist.references import Band
from electra_dist.references.band import DEVIATIONS, LEAST_WIDTH, NEIGHBOURS, band_of

STEPS = tuple(range(10, 610, 10))


def drawn(seeds: int, noise: float, key: int) -> np.ndarray:
    """Falling curves with noise, as losses are; a row per seed."""
    generator = np.random.default_rng(key)
    falling = 6.0 * np.exp(-np.array(STEPS) / 200) + 3.0
    return falling + generator.normal(0.0, noise, (seeds, len(STEPS)))


def test_the_band_is_the_mean_and_the_pooled_deviation_of_a_new_run() -> None:
    values = drawn(3, noise=0.3, key=1)
    band = band_of("loss", STEPS, values.tolist())
    variances = values.var(axis=0, ddof=1)
    for place in range(len(STEPS)):
        around = variances[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
        larger = max(around.mean(), variances[place])
        wide = DEVIATIONS * np.sqrt(larger * (1 + 1 / 3))
        mean = values[:, place].mean()
        half = max(wide, LEAST_WIDTH * mean)
        assert band.middle[place] == pytest.approx(mean)
        assert band.low[place] == pytest.approx(mean - half)
        assert band.high[place] == pytest.approx(mean + half)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_of_many_new_runs_less_than_one_value_in_a_hundred_lies_outside(noise: float) -> None:
    """Student's t of 14 degrees of freedom lies beyond 3 with a probability of 0.95%."""
    outside = 0
    for key in range(200):
        values = drawn(4, noise, key)
        band = band_of("loss", STEPS, values[:3].tolist())
        outside += len(band.outside(dict(zip(STEPS, values[3].tolist(), strict=True))))
    assert outside < 0.01 * 200 * len(STEPS)


def test_a_step_at_which_the_seeds_differ_is_not_narrowed_by_its_neighbours() -> None:
    """As at step 0, where random weights alone make the losses."""
    values = [[1.0, 0.5, 0.5, 0.5, 0.5], [0.7, 0.5, 0.5, 0.5, 0.5]]
    band = band_of("loss", (0, 1, 2, 3, 4), values)
    deviation = np.std([1.0, 0.7], ddof=1)
    half = DEVIATIONS * deviation * np.sqrt(1.5)
    assert band.high[0] - band.middle[0] == pytest.approx(half)
    assert band.high[1] - band.middle[1] == pytest.approx(half / 2.2360679775)  # one of five
    assert band.high[4] - band.middle[4] == pytest.approx(LEAST_WIDTH * 0.5)


def test_a_run_that_learns_less_lies_outside() -> None:
    values = drawn(4, noise=0.02, key=7)
    band = band_of("loss", STEPS, values[:3].tolist())
    worse = dict(zip(STEPS, (values[3] + 0.4).tolist(), strict=True))
    assert band.outside(worse) == STEPS


def test_seeds_that_agree_leave_the_least_width() -> None:
    band = band_of("auc", (1, 2), [[0.5, -0.8], [0.5, -0.8]])
    assert band.low == pytest.approx((0.49, -0.816))
    assert band.high == pytest.approx((0.51, -0.784))


def test_between_two_steps_the_limits_are_those_of_numpy() -> None:
    band = band_of("loss", STEPS, drawn(3, noise=0.2, key=3).tolist())
    for step in range(STEPS[0], STEPS[-1] + 1):
        limits = band.at(step)
        assert limits is not None
        for found, line in zip(limits, (band.low, band.middle, band.high), strict=True):
            assert found == pytest.approx(np.interp(step, STEPS, line))


def test_before_the_first_step_and_after_the_last_there_are_no_limits() -> None:
    band = Band("loss", (10, 20), low=(1.0, 1.0), middle=(2.0, 2.0), high=(3.0, 3.0))
    assert band.at(9) is None
    assert band.at(21) is None
    assert band.outside({0: 99.0, 10: 0.5, 15: 3.0, 20: math.nan, 30: 99.0}) == (10, 20)


def test_a_band_of_one_step_has_limits_there() -> None:
    band = Band("loss", (10,), low=(1.0,), middle=(2.0,), high=(3.0,))
    assert band.at(10) == (1.0, 2.0, 3.0)
    assert band.at(11) is None
