"""The charts of a page: which there are, what they say in words, and the numbers that are drawn.

Comes in: the runs of a comparison. Goes out: `Group`s of `Chart`s for the template, and `drawing`,
the object that `report.js` reads.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from electra_dist.references import Reference
from electra_dist.report.axes import AXES, Places, places_of
from electra_dist.report.curves import Curve, Rows, close_range, curves_of, points_each
from electra_dist.report.happenings import happenings_of
from electra_dist.report.loading import Column, LoadedRun, Table
from electra_dist.report.page.content import PARTS
from electra_dist.report.page.words import meaning_of, number, title_of
from electra_dist.runs import metrics
from electra_dist.runs.metrics import Metric

#: Steps of the table under a chart.
_TABLE_STEPS = 6
#: Runs that the text of a chart names.
_TOLD_RUNS = 4
#: Marks of a run on each chart.
_MOST_MARKS = 100
#: Drawn as an axis, or not as a curve.
_NO_CURVES = (metrics.STEP, metrics.WALL_CLOCK, metrics.REAL_TOKENS)
_GROUPS = (
    ("learning", "Learning", ("loss/", "generator/", "discriminator/")),
    ("optimization", "Optimization", ("optim/",)),
    ("speed", "Speed and memory", ("speed/", "memory/")),
    ("data", "Data", ("data/",)),
)


@dataclass(frozen=True)
class Level:
    """A horizontal line that a curve is compared with."""

    value: float
    text: str


@dataclass(frozen=True)
class TableRow:
    """Values of one run at the steps of the table."""

    run: int
    kind: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """One metric over all runs that have it.

    words   what is seen, for those who do not see it
    steps   of the table
    levels  lines to compare with
    """

    key: str
    metric: Metric
    title: str
    meaning: str
    words: str
    curves: tuple[Curve, ...]
    steps: tuple[int, ...]
    rows: tuple[TableRow, ...]
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True)
class Group:
    """Charts under one heading.

    folded    those that are shown when asked for
    constant  what did not change and needs no chart
    """

    key: str
    title: str
    charts: tuple[Chart, ...]
    folded: tuple[Chart, ...] = ()
    constant: tuple[str, ...] = ()


def groups_of(runs: Sequence[LoadedRun]) -> list[Group]:
    """All charts, in the order of the metrics."""
    shown = [metric for metric in metrics.all_metrics() if metric not in _NO_CURVES]
    most = points_each(len(shown) * len(runs))
    groups = []
    for key, title, prefixes in _GROUPS:
        charts = []
        constant = []
        for metric in shown:
            if not metric.name.startswith(prefixes):
                continue
            curves = curves_of(runs, metric, most)
            if _is_constant(curves):
                value = number(_values(curves)[0], metric.spec)
                constant.append(f"{title_of(metric)}: {value}")
            elif curves:
                charts.append(_chart(runs, metric, curves))
        folded = tuple(chart for chart in charts if chart.metric.name in PARTS)
        shown_first = tuple(chart for chart in charts if chart.metric.name not in PARTS)
        groups.append(Group(key, title, shown_first, folded, tuple(constant)))
    return groups


def _values(curves: Iterable[Curve]) -> Column:
    return np.concatenate([values for curve in curves for values in (curve.values, curve.held_out)])


def _is_constant(curves: Sequence[Curve]) -> bool:
    if not curves:
        return False
    values = _values(curves)
    return bool((values == values[0]).all())


def _chart(runs: Sequence[LoadedRun], metric: Metric, curves: Sequence[Curve]) -> Chart:
    last = max(runs[curve.run].last_step for curve in curves)
    steps = tuple(int(step) for step in np.linspace(0, last, _TABLE_STEPS + 1)[1:])
    return Chart(
        key=metric.name.replace("/", "-").replace("_", "-"),
        metric=metric,
        title=title_of(metric),
        meaning=meaning_of(metric),
        words=_in_words(runs, metric, curves),
        curves=tuple(curves),
        steps=steps,
        rows=tuple(_table_rows(runs, metric, curves, steps)),
        levels=tuple(_levels(runs, metric)),
    )


def _in_words(runs: Sequence[LoadedRun], metric: Metric, curves: Sequence[Curve]) -> str:
    parts = []
    for curve in curves[:_TOLD_RUNS]:
        loaded = runs[curve.run]
        parts.append(f"{loaded.label}: {_course(loaded, metric, curve)}")
    if len(curves) > _TOLD_RUNS:
        parts.append(f"and {len(curves) - _TOLD_RUNS} more runs in the table")
    return f"{title_of(metric)} over training. " + "; ".join(parts) + "."


def _course(loaded: LoadedRun, metric: Metric, curve: Curve) -> str:
    """Where a curve begins and ends."""
    if len(curve.rows):
        table, rows, values, kind = loaded.trained, curve.rows, curve.values, "training"
    else:
        table, rows, values, kind = loaded.held_out, curve.held_out_rows, curve.held_out, "held out"
    first = number(values[0], metric.spec)
    last = number(values[-1], metric.spec)
    steps = table.steps[rows]
    return f"{first} at step {steps[0]:,.0f}, {last} at step {steps[-1]:,.0f} ({kind})"


def _table_rows(
    runs: Sequence[LoadedRun], metric: Metric, curves: Sequence[Curve], steps: Sequence[int]
) -> Iterable[TableRow]:
    for curve in curves:
        loaded = runs[curve.run]
        tables = (
            ("training", loaded.trained, metric.name),
            ("held out", loaded.held_out, metric.name_held_out),
        )
        for kind, table, name in tables:
            if name in table.columns:
                cells = tuple(number(value, metric.spec) for value in _at(table, name, steps))
                yield TableRow(curve.run, kind, cells)


def _at(table: Table, name: str, steps: Sequence[int]) -> list[float]:
    """The newest defined value at each step; NaN before the first and after the last row."""
    values = table.column(name)
    defined = ~np.isnan(values)
    known_steps = table.steps[defined]
    places = np.searchsorted(known_steps, steps, side="right") - 1
    found = []
    for place, step in zip(places, steps, strict=True):
        if place < 0 or step > table.steps[-1]:
            found.append(math.nan)
        else:
            found.append(float(values[defined][place]))
    return found


def _levels(runs: Sequence[LoadedRun], metric: Metric) -> Iterable[Level]:
    if metric == metrics.AUC:
        yield Level(0.5, "chance")
    if metric == metrics.GENERATOR_LOSS:
        entropies = {loaded.known.unigram_entropy for loaded in runs} - {None}
        for entropy in entropies:
            assert entropy is not None
            yield Level(entropy, "unigram entropy of the corpus")
    if metric == metrics.TOKENS_PER_SECOND:
        promised = {loaded.known.promised_tokens_per_s for loaded in runs} - {None}
        for rate in promised:
            assert rate is not None
            yield Level(rate, "what plan promises")


# --- the numbers that are drawn -------------------------------------------------------------------


def drawing(
    runs: Sequence[LoadedRun], groups: Sequence[Group], reference: Reference | None
) -> dict[str, Any]:
    """What `report.js` draws: the places of the rows of each run, the charts, and the bands of
    `reference` behind them.
    """
    charts = [chart for group in groups for chart in (*group.charts, *group.folded)]
    drawn = [_DrawnRun(loaded, number, charts) for number, loaded in enumerate(runs)]
    bands = _Bands(reference, max(loaded.last_step for loaded in runs))
    return {
        "axes": [{"key": axis.key, "label": axis.label} for axis in AXES],
        "runs": [run.content() for run in drawn],
        "charts": [_chart_content(chart, drawn, bands) for chart in charts],
    }


def _chart_content(chart: Chart, drawn: Sequence[_DrawnRun], bands: _Bands) -> dict[str, Any]:
    return {
        "key": chart.key,
        "title": chart.title,
        "unit": chart.metric.unit,
        "range": close_range(chart.curves),
        "band": bands.content(chart.metric),
        "levels": [{"value": level.value, "text": level.text} for level in chart.levels],
        "curves": [drawn[curve.run].curve_content(curve) for curve in chart.curves],
    }


@dataclass(frozen=True)
class _Bands:
    """Those of a reference, as far as the runs have come."""

    reference: Reference | None
    last_step: int

    def content(self, metric: Metric) -> dict[str, Any] | None:
        """The band of training; of the held-out rows where the reference has no other."""
        if self.reference is None:
            return None
        band = self.reference.band(metric.name)
        if band is None:
            band = self.reference.band(metric.name_held_out)
        if band is None:
            return None
        count = bisect_left(band.steps, self.last_step) + 1
        return {
            "name": f"reference {self.reference.name}",
            "steps": list(band.steps[:count]),
            "low": _short(np.array(band.low[:count])),
            "middle": _short(np.array(band.middle[:count])),
            "high": _short(np.array(band.high[:count])),
        }


class _DrawnRun:
    """A run with the rows of it that any curve draws."""

    def __init__(self, loaded: LoadedRun, number: int, charts: Sequence[Chart]) -> None:
        own = [curve for chart in charts for curve in chart.curves if curve.run == number]
        self._loaded = loaded
        self._places = places_of(loaded)
        self._rows = _union([curve.rows for curve in own])
        self._held_out_rows = _union([curve.held_out_rows for curve in own])

    def content(self) -> dict[str, Any]:
        """Its name, where its rows are on each axis, and what happened on the way."""
        loaded = self._loaded
        happened = [one for one in happenings_of(loaded) if one.step is not None]
        marks = happened[-_MOST_MARKS:]
        return {
            "label": loaded.label,
            "places": _on_all_axes(self._places, loaded.trained.steps[self._rows]),
            "held_out_places": _on_all_axes(
                self._places, loaded.held_out.steps[self._held_out_rows]
            ),
            "marks": {
                "texts": [f"step {mark.step:,}: {mark.text}" for mark in marks],
                "places": _on_all_axes(self._places, np.array([mark.step for mark in marks])),
            },
        }

    def curve_content(self, curve: Curve) -> dict[str, Any]:
        """A curve whose rows are numbered as in `content`."""
        return {
            "run": curve.run,
            "rows": np.searchsorted(self._rows, curve.rows).tolist(),
            "values": _short(curve.values),
            "smoothed": _short(curve.smoothed),
            "held_out_rows": np.searchsorted(self._held_out_rows, curve.held_out_rows).tolist(),
            "held_out": _short(curve.held_out),
        }


def _union(parts: Sequence[Rows]) -> Rows:
    if not parts:
        return np.zeros(0, np.int64)
    return np.unique(np.concatenate(parts))


def _on_all_axes(places: Places, steps: Column) -> dict[str, list[float | None]]:
    return {axis.key: _short(places.at(axis, steps), digits=7) for axis in AXES}


def _short(values: Column, digits: int = 5) -> list[float | None]:
    """In as many digits as a picture shows; None for NaN."""
    found: list[float | None] = []
    for value in values.tolist():
        if math.isnan(value):
            found.append(None)
        elif value == int(value) and abs(value) < 10**digits:
            found.append(int(value))
        else:
            found.append(float(f"{value:.{digits}g}"))
    return found
