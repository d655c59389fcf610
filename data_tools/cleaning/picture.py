"""A `CleanReport` as a picture of two panels: where the corpus went, and what decided.

Comes in: the report. Goes out: a PNG, whole or not at all. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.cleaning.report import CleanReport, share
from electra_dist.files.pictures import pyplot, save_picture

_DOCUMENTS = "tab:blue"
_CHARACTERS = "tab:orange"
_REASONS = 14
_BAR = 0.38


class _Loss(NamedTuple):
    """One row of the left panel, in shares of everything that was read."""

    name: str
    documents: float
    characters: float
    shown: str


def draw_report(report: CleanReport, out: Path) -> None:
    """Draw both panels into the PNG `out`; what was there is replaced only by a whole picture."""
    losses = _losses(report)
    reasons = _reasons(report)
    height = 1.6 + 0.55 * max(len(losses), len(reasons) * 0.75, 4)
    figure, axes = pyplot().subplots(1, 2, figsize=(13, height), constrained_layout=True)
    _draw_losses(axes[0], losses)
    _draw_reasons(axes[1], reasons)
    figure.suptitle(
        f"{report.documents:,} documents, {report.characters:,} characters read;"
        f" {report.kept_documents:,} documents, {report.kept_characters:,} characters kept"
    )
    save_picture(figure, out)


def _losses(report: CleanReport) -> list[_Loss]:
    """A row per filter and one for what is kept; the shares add up to 1."""
    rows = []
    for one in report.filters:
        shown = _documents(one.dropped_documents)
        if one.changed_documents:
            shown += f", {one.changed_documents:,} rewritten"
        lost = one.dropped_characters + one.removed_characters
        rows.append(
            _Loss(
                one.name,
                share(one.dropped_documents, report.documents),
                share(lost, report.characters),
                shown,
            )
        )
    kept = _Loss(
        "kept",
        share(report.kept_documents, report.documents),
        share(report.kept_characters, report.characters),
        _documents(report.kept_documents),
    )
    return [*rows, kept]


def _documents(count: int) -> str:
    if count == 1:
        return "1 document"
    return f"{count:,} documents"


def _draw_losses(axis: Any, losses: Sequence[_Loss]) -> None:
    places = range(len(losses))
    axis.barh(
        [place - _BAR / 2 for place in places],
        [100 * loss.documents for loss in losses],
        _BAR,
        color=_DOCUMENTS,
        label="documents",
    )
    axis.barh(
        [place + _BAR / 2 for place in places],
        [100 * loss.characters for loss in losses],
        _BAR,
        color=_CHARACTERS,
        label="characters",
    )
    for place, loss in enumerate(losses):
        widest = 100 * max(loss.documents, loss.characters, 0)
        text = f"{loss.documents:.2%} · {loss.characters:.2%}   {loss.shown}"
        inside = widest > 50
        axis.text(
            1 if inside else widest + 1,
            place,
            text,
            va="center",
            fontsize=9,
            color="black",
            bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5},
        )
    axis.set_yticks(list(places), [loss.name for loss in losses])
    axis.invert_yaxis()
    axis.axhline(len(losses) - 1.5, color="grey", linewidth=0.8)
    axis.set(
        xlim=(0, 100),
        xlabel="% of what was read (documents · characters)",
    )
    axis.set_title("dropped, and kept", loc="left")
    axis.grid(alpha=0.3, axis="x")
    axis.legend(loc="lower right", bbox_to_anchor=(1.01, 0.99), ncols=2, fontsize=9, frameon=False)


def _reasons(report: CleanReport) -> list[tuple[str, int]]:
    """The most frequent reasons of all filters, with the value of the parameter that decided."""
    found = []
    for one in report.filters:
        for reason, count in one.reasons.items():
            name = f"{one.name}: {reason}"
            if reason in one.parameters:
                name += f"={one.parameters[reason]}"
            found.append((name, count))
    return sorted(found, key=lambda pair: -pair[1])[:_REASONS]


def _draw_reasons(axis: Any, reasons: Sequence[tuple[str, int]]) -> None:
    if not reasons:
        axis.text(0.5, 0.5, "nothing was dropped", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    bars = axis.barh(
        [name for name, _ in reasons],
        [count for _, count in reasons],
        0.7,
        color=_DOCUMENTS,
        alpha=0.75,
    )
    axis.bar_label(bars, [f" {count:,}" for _, count in reasons], fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set(xlabel="documents")
    axis.set_title("what decided: the parameter, or the kind of duplicate", loc="left")
    axis.grid(alpha=0.3, axis="x")
