"""What of a run goes into its checkpoints, and when none is made.

Comes in: the state of a run and its health. Goes out: a checkpoint on its way to the disk
(`Saver`).
"""

from __future__ import annotations

from electra_dist.checkpoint.saving import Saver
from electra_dist.console import warn
from electra_dist.parallel.collectives import broadcast_object, together
from electra_dist.parallel.world import World
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import Course
from electra_dist.tracking.sinks import Tracker
from electra_dist.train.divergence.health import Health
from electra_dist.train.state import RunState


class Checkpoints:
    """The checkpoints that one run makes."""

    def __init__(self, run: RunDir, saver: Saver, world: World, tracker: Tracker | None) -> None:
        """`tracker` is rank 0's; the other ranks have none."""
        self._run = run
        self._saver = saver
        self._world = world
        self._tracker = tracker

    def save(self, state: RunState, health: Health, final: bool, best: Course | None) -> bool:
        """Save `state`, unless there is a checkpoint of its step; false where training has diverged
        instead.

        Every rank must call it. `final` and `best` are those of `Saver.save`.
        """
        if final:
            self._saver.finish()
        elif self._saver.step_in_flight == state.done:
            return True
        if self._is_saved(state.done):
            return True
        if health.has_diverged():
            return False
        problem = health.problem()
        if health.incident:
            return False
        if problem and self._world.is_main:
            warn(f"step {state.done}: the checkpoint is not healthy: {problem}")
        content = state.to_json(self._world, health.to_json())
        if self._tracker:
            self._tracker.sync()  # rows up to here are not logged again after a resume
        self._saver.save(
            state.done,
            content,
            final=final,
            healthy=not problem,
            reason=problem,
            clear=health.clear,
            best=best,
        )
        return True

    def _is_saved(self, step: int) -> bool:
        """Whether there is a checkpoint of `step`; first, whether this is still our run to write
        in.
        """
        with together(self._world):
            if self._world.is_main:
                lock.check(self._run, fresh=True)
        # Rank 0's listing decides for all:
        # on a network file system the ranks may see different ones.
        there = self._world.is_main and step in self._run.complete_checkpoints()
        return bool(broadcast_object(there, self._world))
