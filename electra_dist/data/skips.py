"""Rows that training passes over, and the step of data that a step of training takes.

A *step of data* d is the d-th group of `train.global_rows` rows in the order of the data, from 0.
Step i of training takes the i-th one that is not skipped: without skips the two are the same. What
is skipped comes from `data.skip_steps`, and from the guard, which passes over the rows of a
divergence. A pure function of the intervals, so that every rank, every world size and every replay
passes over the same rows.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

#: Steps of data from the first number up to, not including, the second.
Interval = tuple[int, int]


class Skips:
    """A set of steps of data, given as half-open intervals that may overlap."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self.intervals = _merged(intervals)
        self._firsts = [first for first, _ in self.intervals]

    def __contains__(self, data_step: int) -> bool:
        return self.next_kept(data_step) != data_step

    def next_kept(self, data_step: int) -> int:
        """The first step of data from `data_step` on that is not skipped."""
        number = bisect.bisect_right(self._firsts, data_step) - 1
        if number < 0:
            return data_step
        return max(data_step, self.intervals[number][1])


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same set as disjoint intervals with gaps between them, ascending."""
    merged: list[Interval] = []
    for first, stop in sorted(intervals):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((first, stop))
    return merged
