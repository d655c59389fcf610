"""The curves of a metric over the rows of several runs: thinned, smoothed, and the range that is
worth a look.

Comes in: `LoadedRun`s and a metric. Goes out: `Curve`s that name the rows of their points, so that
every axis can place them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from electra_dist.report.loading import Column, LoadedRun
from electra_dist.runs.metrics import Metric

Rows = npt.NDArray[np.int64]
#: Points of a curve, and of all curves of a page, at most.
MOST_POINTS = 1000
MOST_POINTS_OF_PAGE = 200_000
#: A curve of a page with many has at least so many.
_FEWEST_POINTS = 100
#: Smoothing looks at this fraction of the rows.
SMOOTHED_OVER = 0.1
#: Percentiles of the raw values between which the close view lies.
_LOWEST = 1.0
_HIGHEST = 99.0
#: A range that is smaller, measured by the greatest value, is no range.
_FLAT = 1e-9
#: Of the range, above and below it.
_MARGIN = 0.06


@dataclass(frozen=True)
class Curve:
    """One metric of one run.

    run              its number
    rows             rows of the training table that are drawn; values and smoothed ones are theirs
    held_out_rows    rows of the table of validations
    """

    run: int
    rows: Rows
    values: Column
    smoothed: Column
    held_out_rows: Rows
    held_out: Column

    def __bool__(self) -> bool:
        return bool(len(self.rows) or len(self.held_out_rows))


def curves_of(runs: Sequence[LoadedRun], metric: Metric, most: int) -> list[Curve]:
    """The curve of `metric` of each run that has it, with at most `most` points."""
    found = []
    for number, loaded in enumerate(runs):
        values = loaded.trained.column(metric.name)
        rows = thinned(values, most)
        held_out = loaded.held_out.column(metric.name_held_out)
        held_out_rows = thinned(held_out, most)
        curve = Curve(
            run=number,
            rows=rows,
            values=values[rows],
            smoothed=smoothed(values)[rows],
            held_out_rows=held_out_rows,
            held_out=held_out[held_out_rows],
        )
        if curve:
            found.append(curve)
    return found


def points_each(curves: int) -> int:
    """How many points a curve may have on a page with so many."""
    fair = MOST_POINTS_OF_PAGE // max(1, curves)
    return max(_FEWEST_POINTS, min(MOST_POINTS, fair))


def thinned(values: Column, most: int) -> Rows:
    """The places of at most `most` defined values: the lowest and the highest of equal stretches,
    and both ends. So no spike is lost.
    """
    defined = np.flatnonzero(~np.isnan(values))
    if len(defined) <= most:
        return defined
    stretches = np.array_split(defined[1:-1], (most - 2) // 2)
    kept = [defined[0], defined[-1]]
    for stretch in stretches:
        kept.append(stretch[np.argmin(values[stretch])])
        kept.append(stretch[np.argmax(values[stretch])])
    return np.unique(np.array(kept, np.int64))


def smoothed(values: Column) -> Column:
    """The mean over the rows around, nearer ones with more weight: a moving mean twice, each over
    half of `SMOOTHED_OVER` of the defined values. It does not lag behind.
    """
    defined = np.flatnonzero(~np.isnan(values))
    reach = round(SMOOTHED_OVER * len(defined) / 4)
    result = np.full(len(values), np.nan)
    result[defined] = _moving_mean(_moving_mean(values[defined], reach), reach)
    return result


def _moving_mean(values: Column, reach: int) -> Column:
    """Over up to `reach` values on each side, as many on the left as on the right."""
    places = np.arange(len(values))
    reaches = np.minimum(reach, np.minimum(places, places[::-1]))
    sums = np.append(0.0, np.cumsum(values))
    means: Column = (sums[places + reaches + 1] - sums[places - reaches]) / (2 * reaches + 1)
    return means


def close_range(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The y range that shows how runs differ: without the first value of each, which is that of
    untrained networks, and without single spikes. None where nothing is left.
    """
    raw = [curve.values[1:] for curve in curves]
    firm = [curve.smoothed[len(curve.smoothed) // 10 + 1 :] for curve in curves]
    firm += [curve.held_out[1:] for curve in curves]
    later = np.concatenate([*raw, *firm])
    if not len(later):
        return None
    low, high = np.percentile(later, [_LOWEST, _HIGHEST])
    whole = np.concatenate(firm)
    if len(whole):
        low = min(low, whole.min())
        high = max(high, whole.max())
    if high - low <= _FLAT * np.abs(later).max():
        everything = np.concatenate([part for one in curves for part in (one.values, one.held_out)])
        low = everything.min()
        high = everything.max()
    margin = _MARGIN * (high - low) or _MARGIN * max(abs(high), 1e-12)
    return float(low - margin), float(high + margin)
