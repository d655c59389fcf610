"""The health of training: what the guard hears of every step, and what that says of a checkpoint.

Comes in: the totals of the steps, and the engines. Goes out: whether training has diverged, the
same on all ranks, and why what is saved now is not healthy.
"""

from __future__ import annotations

import math
from typing import Any

from electra_dist.config import GuardConfig
from electra_dist.objectives import objectives
from electra_dist.parallel.collectives import any_rank
from electra_dist.parallel.world import World
from electra_dist.runs.metrics import Metrics
from electra_dist.train.divergence.guard import Guard, Incident, Place, Signal
from electra_dist.train.divergence.signals import Signals, scale_can_fall
from electra_dist.train.step import StepTotals
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import are_finite


class Health:
    """The guard of one run, where it is enabled, and the way of the losses to it."""

    def __init__(
        self, config: GuardConfig, vocab_size: int, engines: Engines, world: World
    ) -> None:
        self.guard: Guard | None = None
        self._config = config
        self._vocab_size = vocab_size
        self._engines = engines
        self._world = world
        self._signals = Signals(world.device)
        self._logged_finite = True  # what is known of the losses where no guard hears them

    def begin(self, saved: dict[str, Any] | None) -> None:
        """Start from what a checkpoint has of the guard; None is the start of the run."""
        self._signals.forget()
        if self._config.enabled:
            self.guard = Guard(self._config, self._vocab_size, saved)
        else:
            self.guard = None

    @property
    def incident(self) -> Incident | None:
        """The divergence that this rank knows of."""
        if self.guard is None:
            return None
        return self.guard.incident

    @property
    def clear(self) -> int | None:
        """No rollback will go to before a checkpoint of this step; None without a guard."""
        if self.guard is None:
            return None
        return self.guard.clear

    def to_json(self) -> dict[str, Any] | None:
        """What `begin` takes up after a resume."""
        if self.guard is None:
            return None
        return self.guard.to_json()

    # --- hearing ----------------------------------------------------------------------------------

    def is_searching(self) -> bool:
        """Whether the loss scale of the next step can still fall (fp16)."""
        return scale_can_fall(self._engines)

    def hear(self, step: int, data_step: int, totals: StepTotals, searching: bool) -> None:
        """Take in a step, and the step of data that it took; nothing here waits for the device.

        `searching` is what `is_searching` gave before the step.
        """
        if self.guard:
            self._observe(self._signals.send(Place(step, data_step), totals, searching))

    def note_logged(self, row: Metrics) -> None:
        """Take in a row of the metrics."""
        losses = [row[objective.loss.name] for objective in objectives()]
        self._logged_finite = all(map(math.isfinite, losses))

    def accepts(self, validation: Metrics) -> bool:
        """Whether the losses of a validation are no incident."""
        if self.guard is None:
            return True
        losses = [validation[objective.loss.name_held_out] for objective in objectives()]
        self.guard.hear_validation(tuple(losses))
        return self.guard.incident is None

    def _observe(self, signal: Signal | None) -> None:
        if self.guard and signal:
            self.guard.observe(signal)

    # --- saying -----------------------------------------------------------------------------------

    def has_diverged(self, last: bool = False) -> bool:
        """Whether training has diverged, seen from every step so far; `last` where none follows.

        The ranks agree. Waits for the device.
        """
        if self.guard is None:
            return False
        self._observe(self._signals.rest())
        if last:
            self.guard.finish()
        return any_rank(self.guard.incident is not None, self._world)

    def problem(self) -> str:
        """Why what is saved now is not healthy, or nothing.

        Weights that are not finite are an incident, too. Every rank must call it.
        """
        for network, engine in self._engines:
            if any_rank(not are_finite(engine, self._world.rank), self._world):
                reason = f"weights or moments of the {network} are not finite"
                if self.guard:
                    self.guard.condemn(reason)
                return reason
        if self.guard:
            return self.guard.suspicion
        if self._logged_finite:
            return ""
        return "the last logged losses are not finite"
