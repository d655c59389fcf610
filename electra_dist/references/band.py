"""The band around the curves of a few seeds, in which a run with another seed stays.

Comes in: one value per seed and step. Goes out: `Band`, with its limits at any step between.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Standard deviations of a new run's distance to the mean that the band is wide, on each side.
DEVIATIONS = 3.0
#: The band is never narrower than this fraction of the value, on each side: another precision,
#: another device and another order of additions move a curve too.
LEAST_WIDTH = 0.02
#: Steps on each side of one whose variances are averaged with its own: that of three values alone
#: is often close to 0 by chance.
NEIGHBOURS = 3


class Limits(NamedTuple):
    """The band at one step."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Band:
    """Where one metric of a run with another seed lies; `low`, `middle` and `high` by step."""

    metric: str
    steps: tuple[int, ...]
    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]

    def at(self, step: int) -> Limits | None:
        """The limits at `step`, on a line between those of the steps around it; None before the
        first step and after the last one.
        """
        if not self.steps[0] <= step <= self.steps[-1]:
            return None
        after = bisect_left(self.steps, step)
        if self.steps[after] == step:
            return self._limits(after)
        begin = self.steps[after - 1]
        part = (step - begin) / (self.steps[after] - begin)
        left = self._limits(after - 1)
        right = self._limits(after)
        return Limits(*(a + part * (b - a) for a, b in zip(left, right, strict=True)))

    def outside(self, curve: Mapping[int, float]) -> tuple[int, ...]:
        """The steps of `curve` (step -> value) whose value lies outside or is not finite, in order.

        Steps for which there are no limits are left out.
        """
        found = []
        for step in sorted(curve):
            limits = self.at(step)
            if limits is not None and not limits.low <= curve[step] <= limits.high:
                found.append(step)
        return tuple(found)

    def _limits(self, place: int) -> Limits:
        return Limits(self.low[place], self.middle[place], self.high[place])


def band_of(metric: str, steps: Sequence[int], values: Sequence[Sequence[float]]) -> Band:
    """The band of `metric`; `values` has a sequence per seed, of at least two, with one value per
    step.

    The middle is the mean over the n seeds. The half width is `DEVIATIONS` times s √(1 + 1/n), the
    standard deviation of the difference between a new value and the mean of n values, but at least
    `LEAST_WIDTH` of the middle. s² is the sample variance at the step, or the mean of those at the
    step and at its `NEIGHBOURS` where that is larger. With three seeds, fewer than one value in a
    hundred of a new run lies outside.
    """
    by_step = list(zip(*values, strict=True))
    middle = [statistics.fmean(there) for there in by_step]
    variances = [statistics.variance(there) for there in by_step]
    factor = DEVIATIONS * math.sqrt(1 + 1 / len(values))
    half = []
    for place, value in enumerate(middle):
        around = variances[max(place - NEIGHBOURS, 0) : place + NEIGHBOURS + 1]
        variance = max(variances[place], statistics.fmean(around))
        half.append(max(factor * math.sqrt(variance), LEAST_WIDTH * abs(value)))
    return Band(
        metric,
        tuple(steps),
        low=tuple(value - width for value, width in zip(middle, half, strict=True)),
        middle=tuple(middle),
        high=tuple(value + width for value, width in zip(middle, half, strict=True)),
    )
