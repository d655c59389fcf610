"""The held-out losses of a run, and which of several runs is the best by them.

Comes in: rows of metrics.jsonl. Goes out: a `HeldOut`, a `Best`. Runs are compared by the loss of
the discriminator, whose network is the product of a run; by that of the generator where no run
trains another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from electra_dist.runs import metrics
from electra_dist.runs.metrics_log import Row, numbers_of

_LOSSES = (metrics.DISCRIMINATOR_LOSS.name, metrics.GENERATOR_LOSS.name)


@dataclass(frozen=True)
class Best:
    """The lowest held-out loss of a run.

    metric      its name, without the prefix of the held-out rows
    tokenizer   fingerprint of the run's tokenizer; empty where it is not known
    """

    step: int
    metric: str
    loss: float
    tokenizer: str = ""

    @property
    def sentence(self) -> str:
        """What it is, and where."""
        return f"{self.metric} {self.loss:.4f} at step {self.step:,}"


@dataclass(frozen=True)
class HeldOut:
    """The numbers of a held-out row, by their names without the prefix."""

    step: int
    values: dict[str, float]

    @classmethod
    def of_row(cls, row: Row) -> HeldOut | None:
        """None for a row that has no held-out loss; what is undefined is left out."""
        prefix = metrics.HELD_OUT
        values = {
            name.removeprefix(prefix): value
            for name, value in numbers_of(row).items()
            if name.startswith(prefix)
        }
        held_out = cls(row["step"], values)
        if held_out.metric is None:
            return None
        return held_out

    @property
    def metric(self) -> str | None:
        """The loss that is compared."""
        return next((name for name in _LOSSES if name in self.values), None)

    @property
    def loss(self) -> float:
        """Its value."""
        assert self.metric is not None
        return self.values[self.metric]

    def best(self, tokenizer: str = "") -> Best:
        """The loss that is compared, as the best one of its run."""
        assert self.metric is not None
        return Best(self.step, self.metric, self.loss, tokenizer)

    def beats(self, other: HeldOut | None) -> bool:
        """Whether its loss is lower."""
        if other is None or self.metric != other.metric:
            return True
        return self.loss < other.loss


def best_run(runs: Iterable[tuple[str, Best | None]]) -> str | None:
    """The run with the lowest held-out loss, of at least two that have one.

    None too where their tokenizers differ: the losses of such runs do not compare.
    """
    measured = [(run, best) for run, best in runs if best is not None]
    tokenizers = {best.tokenizer for _, best in measured if best.tokenizer}
    for metric in _LOSSES:
        losses = {run: best.loss for run, best in measured if best.metric == metric}
        if losses:
            break
    if len(tokenizers) > 1 or len(measured) < 2:
        return None
    return min(losses, key=lambda run: losses[run])
