"""A curve stays small and true however long a run is, and is drawn where its values lie."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.live.curve import CAPACITY, Curve, Point, Scale, chart, sparkline


def curve_of(values: list[float]) -> Curve:
    curve = Curve()
    for step, value in enumerate(values):
        curve.add(step, value)
    return curve


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20_000), st.integers(0, 2**32))
def test_a_curve_of_any_length_keeps_few_points_and_the_mean(count: int, seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.uniform(-5, 5) for _ in range(count)]
    points = curve_of(values).points
    assert len(points) <= CAPACITY
    assert points[-1].step == count - 1
    assert [point.step for point in points] == sorted({point.step for point in points})
    # each point is the mean of the values since the one before
    start = 0
    for point in points:
        here = values[start : point.step + 1]
        assert point.value == pytest.approx(math.fsum(here) / len(here), abs=1e-9)
        start = point.step + 1


def test_what_is_not_finite_leaves_no_point() -> None:
    assert curve_of([1.0, math.nan, math.inf, 2.0]).points == (Point(0, 1.0), Point(3, 2.0))


def test_the_loss_of_the_first_steps_does_not_flatten_the_rest() -> None:
    points = curve_of([10.0] + [2.0 + 0.5 * (step % 2) for step in range(99)]).points
    assert Scale.of(points) == (2.0, 2.5)
    rows = chart(points, 40, 5, unicode=True)
    assert all(row.strip() for row in rows), "the curve takes the whole height"


def test_a_straight_line_is_drawn_as_one() -> None:
    """From (0, 0) to (10, 10); the scale leaves out the first two of the eleven points."""
    rows = chart(curve_of([float(step) for step in range(11)]).points, 11, 5, unicode=False)
    assert rows == [
        "         .'",
        "       .'  ",
        "      :    ",
        "    .'     ",
        "...'       ",
    ]


def test_every_dot_of_a_braille_chart_stands_where_its_value_is() -> None:
    """Read back with the table of the Unicode standard: dots 1 to 8 of a pattern."""
    width = 8
    points = [Point(step, math.sin(step / 2)) for step in range(2 * width)]
    rows = chart(points, width, 3, unicode=True)
    scale = Scale.of(points)
    places = {
        1: (0, 0),
        2: (0, 1),
        3: (0, 2),
        4: (1, 0),
        5: (1, 1),
        6: (1, 2),
        7: (0, 3),
        8: (1, 3),
    }
    dots = set()
    for y, row in enumerate(rows):
        for x, sign in enumerate(row):
            bits = 0 if sign == " " else ord(sign) - 0x2800
            dots |= {
                (2 * x + dx, 4 * y + dy)
                for dot, (dx, dy) in places.items()
                if bits >> (dot - 1) & 1
            }
    for x, point in enumerate(points):
        share = (min(max(point.value, scale.low), scale.high) - scale.low) / (
            scale.high - scale.low
        )
        assert (x, round((1 - share) * 11)) in dots


def test_a_curve_without_change_and_one_of_a_single_point_are_drawn() -> None:
    for values in ([3.0], [0.0, 0.0], [2.0] * 50):
        rows = chart(curve_of(values).points, 10, 4, unicode=True)
        assert [len(row) for row in rows] == [10] * 4
        assert any(row.strip() for row in rows)
        assert sparkline(curve_of(values).points, 10, unicode=True)


def test_a_sparkline_shows_a_fall_and_makes_noise_small() -> None:
    falls = curve_of([100.0] * 10 + [50.0] * 10).points
    assert sparkline(falls, 20, unicode=False) == "@" * 10 + "_" * 10
    noise = curve_of([100.0, 99.0] * 10).points
    assert set(sparkline(noise, 20, unicode=True)) == {"█"}
