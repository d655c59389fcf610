"""The full evaluation as training sees it: something that looks at each micro-batch of a validation
and makes numbers of all of them. `electra_dist.evaluate.in_training` is one; whoever calls
`train.run.train` hands it in.
"""

from __future__ import annotations

from typing import Protocol

from electra_dist.config import Config
from electra_dist.data.packing import Int64
from electra_dist.data.sources import RunData
from electra_dist.errors import ConfigError
from electra_dist.parallel.world import World
from electra_dist.runs.metrics import Metrics
from electra_dist.train.step import Forwarded


class Evaluation(Protocol):
    """One evaluation, on one rank."""

    def see(self, rows_b: Int64, forwarded: Forwarded) -> None:
        """Take in a micro-batch, whose rows have the numbers `rows_b` (B,) among the held-out rows
        of all ranks; the generator has given a `Look`.
        """

    def finish(self, step: int, losses: Metrics) -> Metrics:
        """Write the evaluation after `step` into the run directory; returns its headline numbers.

        `losses` are those of the validation. Every rank must call it.
        """


class Evaluator(Protocol):
    """Begins evaluations."""

    def check(self) -> None:
        """Raise `UserError` where something is missing on this machine that it needs."""

    def begin(self, config: Config, data: RunData, world: World) -> Evaluation:
        """An evaluation on the held-out rows of `data`."""


def check_evaluator(config: Config, evaluator: Evaluator | None) -> None:
    """Raise `UserError` where `validation.evaluate_every` asks for what this process cannot do."""
    if config.validation.evaluate_every is None:
        return
    if evaluator is None:
        raise ConfigError(
            f"validation.evaluate_every = {config.validation.evaluate_every}: this program trains"
            " without an evaluator; set it to null, or use `electra-dist train` or"
            " `electra_dist.train_run`"
        )
    evaluator.check()
