"""The tables and texts of a page, ready for the template.

Comes in: the runs of a comparison. Goes out: frozen rows of words and numbers; nothing here is
HTML, the template escapes all of it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from electra_dist.report.differences import key_differences
from electra_dist.report.evidence import Evidence, evidence_of
from electra_dist.report.happenings import Happening, happenings_of
from electra_dist.report.loading import LoadedRun
from electra_dist.report.page.words import UNKNOWN, number
from electra_dist.report.summary import RunReport, report_of
from electra_dist.report.verdict import Verdict, verdict_of
from electra_dist.runs import metrics
from electra_dist.runs.heldout.samples import SamplePiece
from electra_dist.runs.metrics import Metric

#: Parts of a step whose seconds are logged, and how a reader calls them.
PARTS = {
    metrics.DATA_WAIT_SECONDS.name: "waiting for data",
    metrics.GENERATOR_FORWARD_SECONDS.name: "generator, forward",
    metrics.GENERATOR_BACKWARD_SECONDS.name: "generator, backward",
    metrics.DISCRIMINATOR_FORWARD_SECONDS.name: "discriminator, forward",
    metrics.DISCRIMINATOR_BACKWARD_SECONDS.name: "discriminator, backward",
    metrics.COMMUNICATION_SECONDS.name: "communication",
    metrics.OPTIMIZER_SECONDS.name: "optimizer",
}
#: Bytes of all pictures of a page.
_MOST_PICTURES = 12 << 20
#: Points of a ROC curve.
_MOST_ROC = 500
#: Pieces of a passage.
_MOST_PIECES = 512


@dataclass(frozen=True)
class RunView:
    """All that the page says of one run, without its curves; `number` is its place among them."""

    number: int
    loaded: LoadedRun
    report: RunReport
    verdict: Verdict
    happenings: tuple[Happening, ...]
    evidence: Evidence
    pictures: tuple[PictureView, ...]
    problems: tuple[str, ...]

    @property
    def label(self) -> str:
        return self.loaded.label

    @property
    def device(self) -> str:
        """What computed at the last start."""
        starts = self.loaded.facts.starts
        if not starts:
            return UNKNOWN
        last = starts[-1]
        words = str(last.world_size)
        if last.device:
            words += f" × {last.device}"
        if last.nodes > 1:
            words += f", {last.nodes} nodes"
        return words


@dataclass(frozen=True)
class PictureView:
    """A picture as a URL that holds it."""

    name: str
    url: str


def run_views(runs: Sequence[LoadedRun]) -> list[RunView]:
    """One for each run, with pictures as long as there is room for them."""
    room = _MOST_PICTURES
    views = []
    for place, loaded in enumerate(runs):
        evidence = evidence_of(loaded.run)
        pictures = []
        problems = list(evidence.problems)
        for picture in evidence.pictures:
            if len(picture.content) > room:
                problems.append(f"{picture.name} is left out: the page has no room for it.")
                continue
            room -= len(picture.content)
            encoded = base64.b64encode(picture.content).decode()
            pictures.append(PictureView(picture.name, f"data:image/png;base64,{encoded}"))
        views.append(
            RunView(
                number=place,
                loaded=loaded,
                report=report_of(loaded),
                verdict=verdict_of(loaded),
                happenings=tuple(happenings_of(loaded)),
                evidence=evidence,
                pictures=tuple(pictures),
                problems=(*loaded.notes, *problems),
            )
        )
    return views


# --- where the time of a step goes ----------------------------------------------------------------


@dataclass(frozen=True)
class SplitStep:
    """Mean seconds of the parts of a step, over all rows of a run."""

    run: int
    parts: tuple[float, ...]
    rest: float

    @property
    def seconds(self) -> float:
        return sum(self.parts) + self.rest

    @property
    def all_parts(self) -> tuple[float, ...]:
        return (*self.parts, self.rest)

    def share(self, part: float) -> float | None:
        """Of the whole step; None where no time is known."""
        if not self.seconds:
            return None
        return part / self.seconds


def split_steps(runs: Sequence[LoadedRun]) -> list[SplitStep]:
    """Of the runs that log at least one part; a part that a run has not counts in `rest`."""
    found = []
    for run, loaded in enumerate(runs):
        table = loaded.trained
        if not any(name in table.columns for name in PARTS):
            continue
        parts = tuple(_mean(loaded, name) or 0.0 for name in PARTS)
        whole = _mean(loaded, metrics.STEP_SECONDS.name) or 0.0
        found.append(SplitStep(run, parts, max(0.0, whole - sum(parts))))
    return found


def _mean(loaded: LoadedRun, name: str) -> float | None:
    values = loaded.trained.column(name)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return float(values.mean())


# --- evaluations ----------------------------------------------------------------------------------

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class EvaluationCurves:
    """ROC and calibration of the newest evaluation of a run."""

    run: int
    step: int
    roc: Points
    calibration: Points


def evaluation_curves(views: Sequence[RunView]) -> list[EvaluationCurves]:
    """Of each run that has an evaluation with curves."""
    found = []
    for view in views:
        for evaluation in view.evidence.evaluations[:1]:
            calibration = [
                (one.mean_probability, one.replaced_fraction)
                for one in evaluation.calibration
                if one.mean_probability is not None and one.replaced_fraction is not None
            ]
            every = 1 + len(evaluation.roc) // _MOST_ROC
            roc = [*evaluation.roc[::every], *evaluation.roc[-1:]]
            found.append(EvaluationCurves(view.number, evaluation.step, roc, calibration))
    return [one for one in found if one.roc]


# --- sources --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceRow:
    """One source of a run on mixed data."""

    run: int
    source: str
    epochs: str
    generator_loss: str
    discriminator_loss: str


def source_rows(runs: Sequence[LoadedRun]) -> list[SourceRow]:
    """The newest numbers of each source."""
    found = []
    for run, loaded in enumerate(runs):
        if loaded.config is None:
            continue
        for source in loaded.config.data.sources:
            name = source.name or UNKNOWN
            found.append(
                SourceRow(
                    run,
                    name,
                    number(loaded.trained.last(metrics.EPOCH.name_of(name)), ".2f"),
                    _held_out_of(loaded, metrics.GENERATOR_LOSS, name),
                    _held_out_of(loaded, metrics.DISCRIMINATOR_LOSS, name),
                )
            )
    return found


def _held_out_of(loaded: LoadedRun, metric: Metric, source: str) -> str:
    return number(loaded.held_out.last(metric.name_held_out_of(source)), metric.spec)


# --- a sweep --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A value in words and as what a column is sorted by."""

    text: str
    order: str
    is_best: bool = False


@dataclass(frozen=True)
class Sweep:
    """A row of cells for each run: what was set, and what came of it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class _Result:
    """A column of results; `sign` is 1 where less is better."""

    title: str
    metric: Metric
    sign: int


_RESULTS = (
    _Result("G loss", metrics.GENERATOR_LOSS, 1),
    _Result("D loss", metrics.DISCRIMINATOR_LOSS, 1),
    _Result("D AUC", metrics.AUC, -1),
)


def sweep_of(runs: Sequence[LoadedRun], reports: Sequence[RunReport], comparable: bool) -> Sweep:
    """The table of a sweep; the best loss is marked only where losses are `comparable`."""
    keys = key_differences(runs)
    columns = [key.key for key in keys]
    rows: list[list[Cell]] = [
        [_setting(key.values[run]) for key in keys] for run in range(len(runs))
    ]
    for result in _RESULTS:
        columns.append(result.title)
        values = [_best_held_out(loaded, result) for loaded in runs]
        _add_results(rows, values, result.metric.spec, result.sign, comparable)
    columns.append("tokens/s")
    _add_results(rows, [report.tokens_per_s for report in reports], ",.0f", -1, True)
    columns.append("steps")
    for row, report in zip(rows, reports, strict=True):
        row.append(Cell(f"{report.step:,}", str(report.step)))
    return Sweep(tuple(columns), tuple(tuple(row) for row in rows))


def _setting(value: str) -> Cell:
    return Cell(value, value)


def _best_held_out(loaded: LoadedRun, result: _Result) -> float | None:
    values = result.sign * loaded.held_out.column(result.metric.name_held_out)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return float(result.sign * values.min())


def _add_results(
    rows: Sequence[list[Cell]],
    values: Sequence[float | None],
    spec: str,
    sign: int,
    comparable: bool,
) -> None:
    known = [sign * value for value in values if value is not None]
    best = min(known, default=None)
    for row, value in zip(rows, values, strict=True):
        if value is None:
            row.append(Cell(UNKNOWN, ""))
        else:
            is_best = comparable and sign * value == best
            row.append(Cell(number(value, spec), repr(value), is_best))


# --- passages -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A piece of a passage.

    kind     one of KINDS; empty for a token that nothing is to be said of
    before   the space before the token
    """

    text: str
    kind: str
    before: str = ""
    original: str = ""
    note: str = ""


#: What a piece can be, and how the legend calls it.
KINDS = {
    "caught": "replaced, and the discriminator calls it replaced",
    "missed": "replaced, and the discriminator calls it original",
    "restored": "masked, and the generator put the original back",
    "accused": "original, but the discriminator calls it replaced",
}


def marked(pieces: Sequence[SamplePiece]) -> list[Mark]:
    """The pieces of a passage with what both networks made of them."""
    marks = [_mark_of(piece) for piece in pieces[:_MOST_PIECES]]
    if len(pieces) > _MOST_PIECES:
        marks.append(Mark(f" … and {len(pieces) - _MOST_PIECES:,} more tokens", ""))
    return marks


def _mark_of(piece: SamplePiece) -> Mark:
    probability = piece.discriminator_probability
    called = probability is not None and probability >= 0.5
    note = ""
    if probability is not None:
        note = f"D {probability:.2f}"
    if piece.generator_probability is not None:
        note = f"G {piece.generator_probability:.2f}, {note}".removesuffix(", ")
    word = piece.text.lstrip(" ")
    before = piece.text[: len(piece.text) - len(word)]
    if piece.replaced:
        kind = "missed"
        if called:
            kind = "caught"
        original = (piece.original or piece.text).strip(" ")
        return Mark((piece.sampled or piece.text).strip(" "), kind, before, original, note)
    if piece.sampled is not None:
        return Mark(word, "restored", before, note=note)
    if called:
        return Mark(word, "accused", before, note=note)
    return Mark(piece.text, "")
