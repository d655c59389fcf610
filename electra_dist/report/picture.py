"""The curves of one run as a PNG. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.files.pictures import pyplot, save_picture
from electra_dist.report.loading import LoadedRun, Table
from electra_dist.report.summary import report_of
from electra_dist.runs import metrics


def plot_curves(loaded: LoadedRun, out: Path) -> None:
    """Draw losses, discriminator scores and speed over the steps into the PNG `out`;
    raises `UserError`.
    """
    report = report_of(loaded)
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    panels = (
        (axes[0, 0], metrics.GENERATOR_LOSS, "generator loss (nats per masked token)"),
        (axes[0, 1], metrics.DISCRIMINATOR_LOSS, "discriminator loss (nats per token)"),
        (axes[1, 0], metrics.AUC, "discriminator AUC"),
        (axes[1, 1], metrics.TOKENS_PER_SECOND, "real tokens per second"),
    )
    for axis, metric, title in panels:
        _draw(axis, loaded.trained, metric.name, "training", alpha=0.5)
        if metric.held_out:
            _draw(axis, loaded.held_out, metric.name_held_out, "held out", marker="o")
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    if report.unigram_entropy is not None:
        axes[0, 0].axhline(
            report.unigram_entropy, linestyle="--", color="grey", label="unigram entropy"
        )
    axes[1, 0].axhline(0.5, linestyle="--", color="grey", label="chance")
    for axis, _, _ in panels:
        axis.legend()
    figure.suptitle(f"{report.path}: {report.real_tokens:,} tokens in {report.step:,} steps")
    save_picture(figure, out)


def _draw(axis: Any, table: Table, name: str, label: str, **style: Any) -> None:
    values = table.column(name)
    defined = ~np.isnan(values)
    if defined.any():
        axis.plot(table.steps[defined], values[defined], label=label, **style)
