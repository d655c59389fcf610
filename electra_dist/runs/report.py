"""What came of a run: a table and a picture of its curves, from the run directory alone.

Comes in: a run directory. Goes out: `RunReport` (facts and losses), and a PNG of training and
held-out curves. Needs matplotlib for the picture, no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.console import human_number
from electra_dist.data.sources import RunData, open_data
from electra_dist.errors import DataError, UserError
from electra_dist.files.pictures import pyplot, save_picture
from electra_dist.runs import metrics
from electra_dist.runs.checkpoints import health
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import BestSaved, best_saved, recorded_early_stop
from electra_dist.runs.rollbacks import Rollback

Row = dict[str, Any]

_HELD_OUT = {
    "generator loss": metrics.GENERATOR_LOSS,
    "generator accuracy": metrics.GENERATOR_ACCURACY,
    "discriminator loss": metrics.DISCRIMINATOR_LOSS,
    "discriminator AUC": metrics.AUC,
    "discriminator precision": metrics.PRECISION,
    "discriminator recall": metrics.RECALL,
}


@dataclass(frozen=True)
class RunReport:
    """One run, told in numbers. Losses are in nats; `held_out` has (first, last) of each curve."""

    path: str
    step: int
    steps: int
    parameters: int | None
    real_tokens: int
    epochs: float
    starts: int
    world_sizes: list[int]
    checkpoints: list[int]
    tokens_per_s: float | None
    unigram_entropy: float | None
    corpus_tokens: int | None
    held_out: dict[str, tuple[float | None, float | None]]
    broken_rows: int = 0
    """What stands in metrics.jsonl and is no row: a crash of the node, a full disk."""
    rollbacks: tuple[Rollback, ...] = ()
    """Returns from a divergence, oldest first."""
    unhealthy: str | None = None
    """Why the newest checkpoint is not healthy; None where it is, or where nobody looked."""
    last_healthy: int | None = None
    """Step of the newest checkpoint that is."""
    stopped_early: str | None = None
    """How it has ended before its last step, where patience was at an end."""
    best: BestSaved | None = None
    """The best checkpoint; None where no saved step was validated."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str]]:
        """(name, before, after) lines of the table; facts have no `before`."""
        lines = [
            ("run", "", self.path),
            (
                "steps",
                "",
                f"{self.step:,} of {self.steps:,} in {self.starts} starts, ranks"
                f" {self.world_sizes}",
            ),
            ("parameters trained", "", f"{self.parameters:,}" if self.parameters else "?"),
            ("corpus", "", f"{self.corpus_tokens:,} tokens" if self.corpus_tokens else "?"),
            ("real tokens trained on", "", f"{self.real_tokens:,} ({self.epochs:.2f} epochs)"),
            (
                "real tokens/s, median",
                "",
                f"{self.tokens_per_s:,.0f}" if self.tokens_per_s else "?",
            ),
        ]
        if self.stopped_early:
            lines.append(("end", "", self.stopped_early))
        if self.best:
            lines.append(("best checkpoint", "", self.best.sentence))
        lines += [("went back from a divergence", "", str(rollback)) for rollback in self.rollbacks]
        if self.unhealthy:
            lines.append(
                (
                    "newest checkpoint",
                    "",
                    f"not healthy: {self.unhealthy}; newest healthy: {self.last_healthy}",
                )
            )
        if self.broken_rows:
            lines.append(("broken rows of metrics.jsonl, left out", "", f"{self.broken_rows:,}"))
        if self.unigram_entropy is not None:
            lines.append(("unigram entropy of the corpus", "", f"{self.unigram_entropy:.3f} nats"))
        for name, (before, after) in self.held_out.items():
            lines.append((f"{name}, held out", human_number(before), human_number(after)))
        return lines


def read_report(run: RunDir) -> RunReport:
    """The report of a run; raises `UserError` when nothing was logged yet,
    or not by a training of ours.
    """
    reader = run.read_metrics()
    rows = list(reader)
    if not rows:
        raise UserError(f"{run.metrics}: nothing was logged yet; train first")
    try:
        return _report_of(run, rows, reader.broken)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run.path}: metrics.jsonl or run.json holds something else than training writes"
            f" ({type(error).__name__}: {error})"
        ) from error


def _report_of(run: RunDir, rows: list[Row], broken_rows: int) -> RunReport:
    config = configuration.load(run.config)
    if run.facts.is_file():
        starts = run.read_facts().starts
    else:
        starts = ()
    data = _data(config)
    trained = [row for row in rows if metrics.GENERATOR_LOSS.name in row]
    held_out = [row for row in rows if metrics.GENERATOR_LOSS.name_held_out in row]
    checkpoints = run.complete_checkpoints()
    early = recorded_early_stop(run, config, max(checkpoints, default=None))
    speeds = [
        row[metrics.TOKENS_PER_SECOND.name]
        for row in trained
        if row.get(metrics.TOKENS_PER_SECOND.name) is not None
    ]
    return RunReport(
        path=str(run.path),
        step=int(rows[-1]["step"]),
        steps=config.train.steps,
        parameters=plan.parameters(config, data.vocab_size).total if data else None,
        real_tokens=int(trained[-1].get(metrics.REAL_TOKENS.name) or 0) if trained else 0,
        epochs=float(trained[-1].get(metrics.EPOCH.name) or 0.0) if trained else 0.0,
        starts=len(starts),
        world_sizes=[start.world_size for start in starts],
        checkpoints=checkpoints,
        tokens_per_s=float(np.median(speeds)) if speeds else None,
        unigram_entropy=data.unigram_entropy() if data else None,
        corpus_tokens=data.tokens if data else None,
        held_out={
            name: _first_and_last(held_out, metric.name_held_out)
            for name, metric in _HELD_OUT.items()
        },
        broken_rows=broken_rows,
        rollbacks=run.rollbacks(),
        **asdict(health(run)),
        stopped_early=early.sentence if early else None,
        best=best_saved(run, config),
    )


def _first_and_last(rows: list[Row], key: str) -> tuple[float | None, float | None]:
    if not rows:
        return None, None
    return rows[0].get(key), rows[-1].get(key)


def _data(config: configuration.Config) -> RunData | None:
    """The data, or None where the shards are gone:
    a report of an old run needs them for two lines only.
    """
    try:
        return open_data(config)
    except DataError:
        return None


def plot_curves(run: RunDir, out: Path) -> None:
    """Draw losses, discriminator scores and speed over the steps into the PNG `out`;
    raises `UserError`.
    """
    report = read_report(run)
    rows = list(run.read_metrics())
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    panels = (
        (axes[0, 0], metrics.GENERATOR_LOSS, "generator loss (nats per masked token)"),
        (axes[0, 1], metrics.DISCRIMINATOR_LOSS, "discriminator loss (nats per token)"),
        (axes[1, 0], metrics.AUC, "discriminator AUC"),
        (axes[1, 1], metrics.TOKENS_PER_SECOND, "real tokens per second"),
    )
    for axis, metric, title in panels:
        _draw(axis, rows, metric.name, "training", alpha=0.5)
        if metric.held_out:
            _draw(axis, rows, metric.name_held_out, "held out", marker="o")
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


def _draw(axis: Any, rows: list[Row], key: str, label: str, **style: Any) -> None:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), label=label, **style)
