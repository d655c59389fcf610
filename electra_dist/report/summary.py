"""What came of a run, in numbers: the lines of the terminal and the object of `--json`.

Comes in: a `LoadedRun`. Goes out: `RunReport`, facts and losses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from electra_dist import config as configuration
from electra_dist.console import human_number
from electra_dist.errors import ConfigError
from electra_dist.report.loading import LoadedRun, Table, load_run
from electra_dist.report.verdict import verdict_of
from electra_dist.runs import metrics
from electra_dist.runs.checkpoints import health
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import BestSaved, best_saved, recorded_early_stop
from electra_dist.runs.rollbacks import Rollback

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
    steps: int | None
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
    findings: list[str] = field(default_factory=list)
    """What the health rules found and what has not ended, in words."""
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
                f"{self.step:,} of {_count(self.steps)} in {self.starts} starts, ranks"
                f" {self.world_sizes}",
            ),
            ("parameters trained", "", _count(self.parameters)),
            ("corpus", "", f"{_count(self.corpus_tokens)} tokens"),
            ("real tokens trained on", "", f"{self.real_tokens:,} ({self.epochs:.2f} epochs)"),
            ("real tokens/s, median", "", _count(self.tokens_per_s)),
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
        lines += [("health", "", finding) for finding in self.findings]
        if self.broken_rows:
            lines.append(("broken rows of metrics.jsonl, left out", "", f"{self.broken_rows:,}"))
        if self.unigram_entropy is not None:
            lines.append(("unigram entropy of the corpus", "", f"{self.unigram_entropy:.3f} nats"))
        for name, (before, after) in self.held_out.items():
            lines.append((f"{name}, held out", human_number(before), human_number(after)))
        return lines


def _count(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}"


def read_report(run: RunDir) -> RunReport:
    """The report of a run; raises `UserError` when nothing was logged yet, or when run.json or
    config.yaml is damaged.
    """
    loaded = load_run(run)
    if loaded.config is None:
        configuration.load(run.config)  # says what is wrong with it
    return report_of(loaded)


def report_of(loaded: LoadedRun) -> RunReport:
    """The report of a run that was read."""
    trained = loaded.trained
    starts = loaded.facts.starts
    speeds = trained.column(metrics.TOKENS_PER_SECOND.name)
    speeds = speeds[~np.isnan(speeds)]
    steps = None
    if loaded.config is not None:
        steps = loaded.config.train.steps
    speed = None
    if len(speeds):
        speed = float(np.median(speeds))
    return RunReport(
        path=str(loaded.run.path),
        step=loaded.last_step,
        steps=steps,
        parameters=loaded.known.parameters,
        real_tokens=int(trained.last(metrics.REAL_TOKENS.name) or 0),
        epochs=trained.last(metrics.EPOCH.name) or 0.0,
        starts=len(starts),
        world_sizes=[start.world_size for start in starts],
        checkpoints=loaded.run.complete_checkpoints(),
        tokens_per_s=speed,
        unigram_entropy=loaded.known.unigram_entropy,
        corpus_tokens=loaded.known.corpus_tokens,
        held_out={
            name: _first_and_last(loaded.held_out, metric.name_held_out)
            for name, metric in _HELD_OUT.items()
        },
        broken_rows=loaded.broken,
        rollbacks=loaded.facts.rollbacks,
        findings=[finding.sentence for finding in verdict_of(loaded).open],
        **asdict(health(loaded.run)),
        **_chosen(loaded),
    )


def _chosen(loaded: LoadedRun) -> dict[str, Any]:
    """How the run has stopped early, and its best checkpoint; nothing where it is not known."""
    if loaded.config is None:
        return {}
    newest = max(loaded.run.complete_checkpoints(), default=None)
    try:
        early = recorded_early_stop(loaded.run, loaded.config, newest)
        best = best_saved(loaded.run, loaded.config)
    except ConfigError:  # a metric of another version: the rest of the report is worth having
        return {}
    return {"stopped_early": early.sentence if early else None, "best": best}


def _first_and_last(table: Table, name: str) -> tuple[float | None, float | None]:
    """The values of the first and of the last row; None where undefined."""
    if not len(table):
        return None, None
    values = table.column(name)
    return _defined(values[0]), _defined(values[-1])


def _defined(value: float) -> float | None:
    if np.isnan(value):
        return None
    return float(value)
