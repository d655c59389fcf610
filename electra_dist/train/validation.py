"""Validation: losses on the held-out rows, the same ones every time.

Comes in: the engines, between two steps. Goes out: the losses, or nothing where an interruption
came; it is heard between two micro-batches, and what is interrupted is repeated after the resume.
"""

from __future__ import annotations

from electra_dist.checkpoint.tensors import read_trainer_state
from electra_dist.config import Config
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.validation import has_validation, validation_micro_batches
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
        manifest: Manifest,
        engines: Engines,
        world: World,
        agreement: Agreement,
    ) -> None:
        self._config = config
        self._manifest = manifest
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
        return has_validation(self._manifest)

    def is_done(self, run: RunDir, step: int) -> bool:
        """Whether that of `step` stands in the metrics; the ranks agree."""
        there = self._world.is_main and is_validated(run, step)
        return bool(broadcast_object(there, self._world))

    def losses(self, step: int, interruption: Interruption) -> Metrics | None:
        """Losses and scores after `step`, over all ranks; None where the ranks are to stop."""
        window = Window(self._world.device)
        batches = validation_micro_batches(
            self._config, self._manifest, self._world.rank, self._world.world_size
        )
        if any_rank(interruption.requested is not None, self._world):
            return None
        with signs.phase("validation", step):
            for batch in batches:
                self._agreement.post(_stop_if_asked(interruption))
                window.add(evaluate_step(self._engines, batch, self._config), (batch,))
                if self._agreement.read(_stop_if_asked(interruption)).call is Call.STOP:
                    return None
                signs.sign()
        return window.reduced(self._world).losses(HELD_OUT)


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
