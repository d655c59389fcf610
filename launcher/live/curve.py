"""A number over the steps of a run, thinned while it grows, and drawn with characters.

Comes in: a value for each logged step. Goes out: points, lines of a chart, a sparkline. A curve
holds `CAPACITY` points at most: neighbours are joined to their mean once there are more.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

#: Points of a curve: twice the dots of a chart in a wide terminal.
CAPACITY = 512
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARKS_ASCII = "_.-=+*#@"
#: The bits of the dots of a braille character, by column and row.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800
#: Of the first points, that the scale leaves out: the loss of step 0 would flatten the rest.
_WARMING = 0.1


class Point(NamedTuple):
    """The mean of a few neighbouring values, at the last step of them."""

    step: int
    value: float


class Curve:
    """One number over the steps."""

    def __init__(self) -> None:
        self._span = 1  # values that a point is the mean of
        self._points: list[Point] = []
        self._waiting: list[Point] = []

    def add(self, step: int, value: float) -> None:
        """A value that was logged; one that is not finite leaves a gap."""
        if not math.isfinite(value):
            return
        self._waiting.append(Point(step, value))
        if len(self._waiting) < self._span:
            return
        self._points.append(_joined(self._waiting))
        self._waiting = []
        if len(self._points) >= CAPACITY:
            self._span *= 2
            pairs = range(0, len(self._points), 2)
            self._points = [_joined(self._points[at : at + 2]) for at in pairs]

    @property
    def points(self) -> tuple[Point, ...]:
        """Those that are whole, and what the next one has so far."""
        if self._waiting:
            return (*self._points, _joined(self._waiting))
        return tuple(self._points)


def _joined(points: Sequence[Point]) -> Point:
    return Point(points[-1].step, statistics.fmean(point.value for point in points))


class Scale(NamedTuple):
    """The values at the bottom and at the top of a chart."""

    low: float
    high: float

    @classmethod
    def of(cls, points: Sequence[Point]) -> Scale:
        """All values but those of the first few steps, which lie far above or below."""
        settled = points[math.ceil(len(points) * _WARMING) :] or points
        values = [point.value for point in settled]
        low = min(values)
        high = max(values)
        if low == high:
            margin = abs(low) * 0.01 or 1.0
            return cls(low - margin, high + margin)
        return cls(low, high)

    def place(self, value: float, dots: int) -> int:
        """The dot of a column of `dots`, counted from the top, at which `value` stands."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round((1 - min(max(share, 0.0), 1.0)) * (dots - 1))


def chart(points: Sequence[Point], width: int, height: int, *, unicode: bool) -> list[str]:
    """`height` lines of `width` characters: the curve, joined to a line where it jumps."""
    if unicode:
        across = 2 * width
        down = 4 * height
    else:
        across = width
        down = 2 * height
    scale = Scale.of(points)
    column = [scale.place(value, down) for value in _resampled(points, across)]
    grid = [[False] * across for _ in range(down)]
    for x, y in enumerate(column):
        before = column[max(x - 1, 0)]
        for dot in range(min(y, before + 1), max(y, before - 1) + 1):
            grid[dot][x] = True
    if unicode:
        return [_braille_line(grid[4 * row : 4 * row + 4], width) for row in range(height)]
    return [_ascii_line(grid[2 * row], grid[2 * row + 1]) for row in range(height)]


def _braille_line(rows: Sequence[Sequence[bool]], width: int) -> str:
    cells = [0] * width
    for y, row in enumerate(rows):
        for x, is_set in enumerate(row):
            if is_set:
                cells[x // 2] |= _DOTS[x % 2][y]
    return "".join(chr(_BRAILLE + bits) if bits else " " for bits in cells)


def _ascii_line(upper: Sequence[bool], lower: Sequence[bool]) -> str:
    signs = {(False, False): " ", (True, False): "'", (False, True): ".", (True, True): ":"}
    return "".join(signs[pair] for pair in zip(upper, lower, strict=True))


def sparkline(points: Sequence[Point], width: int, *, unicode: bool) -> str:
    """One line of at most `width` characters: higher ones for higher values.

    Its lowest character is half of the highest value, or less, so that noise looks small.
    """
    if unicode:
        signs = _SPARKS
    else:
        signs = _SPARKS_ASCII
    values = _resampled(points, min(width, len(points)))
    high = max(values)
    scale = Scale(min(*values, high / 2), high)
    return "".join(signs[-1 - scale.place(value, len(signs))] for value in values)


def _resampled(points: Sequence[Point], columns: int) -> list[float]:
    """The value at each column, whose steps are spread evenly from the first to the last: the mean
    of the points there, else on the straight line between those next to it.
    """
    first = points[0].step
    reach = max(points[-1].step - first, 1)
    found: dict[int, list[float]] = {}
    for point in points:
        column = (point.step - first) * (columns - 1) // reach
        found.setdefault(column, []).append(point.value)
    known = {column: statistics.fmean(here) for column, here in found.items()}
    values = []
    for before, after in itertools.pairwise(known):
        rise = (known[after] - known[before]) / (after - before)
        values += [known[before] + rise * step for step in range(after - before)]
    last = max(known)
    return values + [known[last]] * (columns - last)
