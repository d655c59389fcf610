"""Validation: losses on the held-out rows, the same ones every time.

Comes in: the engines, between two steps. Goes out: the losses, or nothing where an interruption
came; it is heard between two micro-batches, and what is interrupted is repeated after the resume.
Where a full evaluation is due, it looks on: the same forward passes serve both, and no weight is
copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from electra_dist.checkpoint.tensors import read_trainer_state
from electra_dist.config import Config
from electra_dist.data.sources import RunData, has_validation
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import HeldOut, deal, held_out
from electra_dist.objectives import objectives
from electra_dist.parallel import signs
from electra_dist.parallel.collectives import any_rank, broadcast_object, together
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import GENERATOR_LOSS, HELD_OUT, Metrics
from electra_dist.train.agreement import Agreement, Call, Said
from electra_dist.train.faults import Interruption
from electra_dist.train.heldout.evaluator import Evaluation, Evaluator
from electra_dist.train.state import RunState
from electra_dist.train.step import forward_step, forward_totals
from electra_dist.train.window import Window
from electra_dist.zero.engines import Engines


class Validation:
    """The validations of one run."""

    def __init__(
        self,
        config: Config,
        data: RunData,
        engines: Engines,
        world: World,
        agreement: Agreement,
        evaluator: Evaluator | None = None,
    ) -> None:
        """`evaluator` makes the evaluations of `validation.evaluate_every`."""
        self._config = config
        self._data = data
        self._engines = engines
        self._world = world
        self._agreement = agreement
        self._evaluator = evaluator

    def is_due(self, step: int) -> bool:
        """Whether one follows `step`, if there are rows for it."""
        every = self._config.validation.every
        if step == self._config.train.steps or self._is_evaluated(step):
            return True
        return bool(every and step % every == 0)

    def _is_evaluated(self, step: int) -> bool:
        """Whether a full evaluation is part of that after `step`."""
        every = self._config.validation.evaluate_every
        return bool(every and step and step % every == 0)

    @property
    def has_rows(self) -> bool:
        """Whether there are held-out rows."""
        return has_validation(self._data)

    def is_owed(self, run: RunDir, state: RunState) -> bool:
        """Whether that of the step that training goes on from is to come; the ranks agree."""
        if not self.has_rows or (state.done and state.unwritten is None):
            return False
        there = self._world.is_main and is_validated(run, state.done)
        return not broadcast_object(there, self._world)

    def losses(self, step: int, interruption: Interruption) -> Metrics | None:
        """Losses and scores after `step`, over all ranks; None where the ranks are to stop.

        Where sources are mixed, the losses of each are there too, and the headline numbers of an
        evaluation where one is due.
        """
        world = self._world
        evaluation = None
        if self._evaluator is not None and self._is_evaluated(step):
            evaluation = self._evaluator.begin(self._config, self._data, world)
        if any_rank(interruption.requested is not None, world):
            return None
        parts = held_out(self._data, RowFormat.of(self._config), self._config.validation.rows)
        total = Window(world.device)
        of_sources = {part.source: Window(world.device) for part in parts}
        before = 0
        with signs.phase("validation", step):
            for part in parts:
                windows = (total, of_sources[part.source])
                if self._pass(part, before, windows, evaluation, interruption) is Call.STOP:
                    return None
                before += len(part.rows.keys)
            found = total.reduced(world).losses(HELD_OUT)
            if self._data.is_mixed:
                found |= self._losses_of_sources(of_sources)
            if evaluation is not None:
                found |= evaluation.finish(step, found)
        return found

    def _pass(
        self,
        part: HeldOut,
        before: int,
        windows: Sequence[Window],
        evaluation: Evaluation | None,
        interruption: Interruption,
    ) -> Call:
        """The rows of one source through both networks; `before` rows are of other sources."""
        world = self._world
        specials = self._data.special_tokens
        row_format = RowFormat.of(self._config)
        first = before + world.rank
        for batch in deal(part.rows, row_format, specials, world.rank, world.world_size):
            self._agreement.post(_stop_if_asked(interruption))
            forwarded = forward_step(
                self._engines, batch, self._config, looks=evaluation is not None
            )
            totals = forward_totals(self._engines, forwarded)
            for window in windows:
                window.add(totals, (batch,))
            if evaluation is not None:
                rows_b = first + world.world_size * np.arange(len(batch.tokens), dtype=np.int64)
                evaluation.see(rows_b, forwarded)
                first = int(rows_b[-1]) + world.world_size
            if self._agreement.read(_stop_if_asked(interruption)).call is Call.STOP:
                return Call.STOP
            signs.sign()
        return Call.GO_ON

    def _losses_of_sources(self, windows: Mapping[str, Window]) -> Metrics:
        found: Metrics = {}
        for source, window in windows.items():
            losses = window.reduced(self._world).losses()
            found |= {
                objective.loss.name_held_out_of(source): losses[objective.loss.name]
                for objective in objectives()
            }
        return found


def _stop_if_asked(interruption: Interruption) -> Said:
    if interruption.requested is None:
        return Said(Call.GO_ON)
    return Said(Call.STOP)


def is_validated(run: RunDir, step: int) -> bool:
    """Whether the validation of `step` stands in the metrics."""
    return any(
        row["step"] == step and GENERATOR_LOSS.name_held_out in row for row in run.read_metrics()
    )


def owes_validation(run: RunDir, step: int, world: World) -> bool:
    """Whether training was interrupted in the validation after `step`, which its checkpoint is of;
    the ranks agree.
    """
    owes = False
    with together(world):
        if world.is_main:
            state = read_trainer_state(run.checkpoint(step))
            owes = state.get("unwritten") is not None and not is_validated(run, step)
    return bool(broadcast_object(owes, world))
