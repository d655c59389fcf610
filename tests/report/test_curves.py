"""What is drawn: places on every axis, thinning, smoothing, and the range of the close view."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from electra_dist import plan
from electra_dist.report.axes import FLOPS, HOURS, STEPS, TOKENS, flops_per_token, places_of
from electra_dist.report.curves import (
    SMOOTHED_OVER,
    Curve,
    close_range,
    curves_of,
    smoothed,
    thinned,
)
from electra_dist.report.loading import load_run
from electra_dist.runs import metrics
from tests.support.small_runs import STEP_SECONDS, TOKENS_A_STEP, rows_of, training_row, write_run


def test_a_thinned_curve_keeps_both_ends_and_every_spike() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=20_000)
    values[rng.integers(0, 20_000, 500)] = math.nan
    values[[7_777, 15_001]] = (50.0, -50.0)
    kept = thinned(values, 1000)
    assert 500 < len(kept) <= 1000
    defined = np.flatnonzero(~np.isnan(values))
    assert (kept[0], kept[-1]) == (defined[0], defined[-1])
    assert {7_777, 15_001} <= set(kept.tolist())
    assert not np.isnan(values[kept]).any()
    assert (np.diff(kept) > 0).all()


def test_a_short_curve_keeps_all_that_is_defined() -> None:
    assert thinned(np.array([math.nan, 1.0, math.nan, 2.0]), 1000).tolist() == [1, 3]


def test_smoothing_is_the_mean_of_means_of_the_values_around() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=200)
    values[::17] = math.nan
    defined = [value for value in values if not math.isnan(value)]
    reach = round(SMOOTHED_OVER * len(defined) / 4)
    assert reach > 2

    def mean_around(row: list[float]) -> list[float]:
        result = []
        for place in range(len(row)):
            near = min(reach, place, len(row) - 1 - place)
            result.append(float(np.mean(row[place - near : place + near + 1])))
        return result

    expected = mean_around(mean_around(defined))
    found = smoothed(values)
    assert np.isnan(found).tolist() == np.isnan(values).tolist()
    assert found[~np.isnan(found)] == pytest.approx(expected, abs=1e-12)


def test_a_line_stays_the_same_when_it_is_smoothed() -> None:
    line = np.linspace(3.0, -2.0, 101)
    assert smoothed(line) == pytest.approx(line, abs=1e-12)


def test_the_value_of_step_0_does_not_flatten_the_rest(tmp_path: Path) -> None:
    """Its held-out loss is 90, all later values are below 8."""
    loaded = load_run(write_run(tmp_path / "r", rows_of(100, 2)))
    (curve,) = curves_of([loaded], metrics.GENERATOR_LOSS, 1000)
    assert curve.held_out[0] == 90.0
    found = close_range([curve])
    assert found is not None
    low, high = found
    assert 6.0 - 0.2 < low < curve.values.min()
    assert high < 8.5


def test_a_metric_that_is_the_same_after_its_first_value_shows_that_value() -> None:
    values = np.array([0.4, 0.0, 0.0, 0.0])
    none = np.zeros(0)
    rows = np.arange(4)
    found = close_range([Curve(0, rows, values, values, none.astype(np.int64), none)])
    assert found is not None
    assert found[0] < 0.0
    assert found[1] > 0.4


def test_every_axis_places_a_row_where_its_numbers_say(tmp_path: Path) -> None:
    loaded = load_run(write_run(tmp_path / "r", rows_of(100, 4)))
    places = places_of(loaded)
    steps = np.array([0.0, 4.0, 6.0, 100.0, 104.0])
    assert places.at(STEPS, steps).tolist() == steps.tolist()
    tokens = places.at(TOKENS, steps)
    assert tokens[:4] == pytest.approx(TOKENS_A_STEP * steps[:4])
    assert math.isnan(tokens[4])
    assert places.at(HOURS, steps)[:4] == pytest.approx(STEP_SECONDS * steps[:4] / 3600)
    assert places.at(FLOPS, steps)[:4] == pytest.approx(tokens[:4] * flops_per_token(loaded))


def test_flops_per_token_are_those_of_full_rows(tmp_path: Path) -> None:
    loaded = load_run(write_run(tmp_path / "r", rows_of(4, 2)))
    assert loaded.config is not None
    length = loaded.config.data.row_length
    rows = 8
    masked = math.ceil(loaded.config.data.mask_fraction * length)
    whole = plan.step_flops(loaded.config, 8192, rows * length, rows * length**2, rows * masked)
    assert flops_per_token(loaded) == pytest.approx(whole / (rows * length))


def test_wall_clock_has_the_pauses_in_it(tmp_path: Path) -> None:
    """Two rows do not know their time; the third begins the clock, an hour passes before the
    fifth.
    """
    times = {6: 1000, 8: 1001, 10: 4601, 12: 4500}
    rows = [training_row(step) for step in (2, 4)]
    rows += [training_row(step, **{"speed/wall_clock": time}) for step, time in times.items()]
    places = places_of(load_run(write_run(tmp_path / "r", rows)))
    hours = places.at(HOURS, np.array([2.0, 4.0, 6.0, 8.0, 10.0, 12.0])) * 3600
    assert hours == pytest.approx([1.0, 2.0, 3.0, 4.0, 3604.0, 3604.0])


def test_what_is_not_known_places_nothing(tmp_path: Path) -> None:
    rows = [{"step": step, "loss/generator": 6.0} for step in (2, 4)]
    places = places_of(load_run(write_run(tmp_path / "r", rows, facts={"about": None})))
    for axis in (TOKENS, FLOPS, HOURS):
        assert np.isnan(places.at(axis, np.array([2.0, 4.0]))).all()
