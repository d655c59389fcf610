"""Validation: losses on the held-out rows, the same ones every time.

Comes in: the engines, between two steps. Goes out: the losses, or nothing where an interruption
came; it is heard between two micro-batches, and what is interrupted is repeated after the resume.
"""

from __future__ import annotations

from electra_dist.checkpoint.tensors import read_trainer_state
from electra_dist.config import Config
from electra_dist.data.sources import RunData, has_validation
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import deal, held_out
from electra_dist.objectives import objectives
from electra_dist.parallel import signs
from electra_dist.parallel.collectives import any_rank, broadcast_object, together
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import GENERATOR_LOSS, HELD_OUT, Metrics
from electra_dist.train.agreement import Agreement, Call, Said
from electra_dist.train.faults import Interruption
from electra_dist.train.step import evaluate_step
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
    ) -> None:
        self._config = config
        self._data = data
        self._engines = engines
        self._world = world
        self._agreement = agreement

    def is_due(self, step: int) -> bool:
        """Whether one follows `step`, if there are rows for it."""
        every = self._config.validation.every
        return step == self._config.train.steps or bool(every and step % every == 0)

    @property
    def has_rows(self) -> bool:
        """Whether there are held-out rows."""
        return has_validation(self._data)

    def is_done(self, run: RunDir, step: int) -> bool:
        """Whether that of `step` stands in the metrics; the ranks agree."""
        there = self._world.is_main and is_validated(run, step)
        return bool(broadcast_object(there, self._world))

    def losses(self, step: int, interruption: Interruption) -> Metrics | None:
        """Losses and scores after `step`, over all ranks; None where the ranks are to stop.

        Where sources are mixed, the losses of each are there too.
        """
        world = self._world
        row_format = RowFormat.of(self._config)
        parts = held_out(self._data, row_format, self._config.validation.rows)
        place = (self._data.special_tokens, world.rank, world.world_size)
        total = Window(world.device)
        of_sources = {part.source: Window(world.device) for part in parts}
        if any_rank(interruption.requested is not None, world):
            return None
        with signs.phase("validation", step):
            for part in parts:
                for batch in deal(part.rows, row_format, *place):
                    self._agreement.post(_stop_if_asked(interruption))
                    totals = evaluate_step(self._engines, batch, self._config)
                    for window in (total, of_sources[part.source]):
                        window.add(totals, (batch,))
                    if self._agreement.read(_stop_if_asked(interruption)).call is Call.STOP:
                        return None
                    signs.sign()
        found = total.reduced(world).losses(HELD_OUT)
        if self._data.is_mixed:
            for source, window in of_sources.items():
                losses = window.reduced(world).losses()
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
