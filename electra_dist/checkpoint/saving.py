"""Saving a run over its ranks, in the background where it is safe: a checkpoint is whole or absent
(DESIGN D6).

    save    rank 0 makes a hidden folder; every rank copies what it holds to CPU memory and goes on
            training
            a thread of each rank writes the copy, hashes it and flushes it to the disk
    poll    at the next step boundary at which all these threads are known to be done, the ranks
            exchange sizes and
            checksums a thread of rank 0 writes the manifest and COMPLETE, renames the folder, and
            removes old checkpoints

At most one is in flight: the next `save` waits for it. Whether all have written travels with what
the ranks ask each other in every step (`agreement`). They exchange in their training threads:
gloo's collectives must come in the same order on all ranks, so the background threads call none.
Entry files in the folder would need no agreement, but another host may see them a minute late on a
network file system, and a rank whose disk is full could not leave one.

The last save of a run, and that of an interruption, is written at once. Its failure ends the run.
Where another one fails, a warning says why, its rests are removed, and the run goes on to the next:
nothing before it is lost.

`Saver.save`, `poll` and `finish` are collective: all ranks call them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_dist.checkpoint.background import Job
from electra_dist.checkpoint.host_copy import HostCopy
from electra_dist.checkpoint.publishing import Content, Publisher
from electra_dist.checkpoint.room import check_room, why
from electra_dist.checkpoint.slices import SavedSlices
from electra_dist.checkpoint.tensors import write_share
from electra_dist.config import CheckpointConfig
from electra_dist.console import human_seconds, say, warn
from electra_dist.errors import LostLockError, StorageError
from electra_dist.parallel.collectives import (
    broadcast_object,
    gather_objects,
    on_every_rank,
    raise_together,
)
from electra_dist.parallel.world import World
from electra_dist.runs import lock
from electra_dist.runs.checkpoints import folders, memory
from electra_dist.runs.checkpoints.manifest import FileEntry
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import Saving
from electra_dist.runs.heldout.best import Course
from electra_dist.zero.engines import Engines

#: A wait for the save before that is worth a line.
_LONG_WAIT_SECONDS = 5.0


@dataclass
class _Flight:
    """A checkpoint that is being written.

    content   rank 0: what the manifest needs beside the files
    writing   this rank's files; its result: `FileEntry` by name, as JSON
    """

    step: int
    folder: Path
    content: Content
    writing: Job


class Saver:
    """Saves the engines of one run; owns the threads and the memory for it."""

    def __init__(
        self, run: RunDir, engines: Engines, world: World, settings: CheckpointConfig
    ) -> None:
        self._run = run
        self._engines = engines
        self._world = world
        self._settings = settings
        self._host_copy = HostCopy()
        self._flight: _Flight | None = None
        self._publishing: tuple[int, Job] | None = None  # rank 0
        self._slices = SavedSlices(engines, world)
        self._publisher = Publisher(run, world.world_size, settings)  # rank 0
        self._waited = 0.0
        self._since = time.perf_counter()

    # --- what the trainer calls -------------------------------------------------------------------

    def save(
        self,
        step: int,
        state: dict[str, Any],
        *,
        final: bool = False,
        healthy: bool | None = None,
        reason: str = "",
        clear: int | None = None,
        best: Course | None = None,
    ) -> None:
        """Save the engines as they are now, with `state`, rank 0's, as JSON.

        final     write it at once, and raise `StorageError` on every rank where that fails
        healthy   what is known of weights and losses (`CheckpointManifest`), and why not
        clear     the newest healthy checkpoint up to this step is not removed (`folders.removable`)
        best      nor is the best one of these validations
        """
        with self._waiting():
            self._land_the_one_before(step)
            folder = self._new_folder(step, final)
            if folder is None:
                return
            self._slices.agree()
            at_once = final or not self._settings.asynchronous
            content = Content()
            if self._world.is_main:
                content = self._publisher.content(
                    self._engines, state, healthy, reason, clear, best
                )
            self._take_off(step, folder, content, at_once)
            if at_once:
                self._land(final)

    @property
    def is_writing(self) -> bool:
        """Whether this rank has not written its part of the save in flight;
        `poll` wants to know it of all ranks.
        """
        return self._flight is not None and self._flight.writing.is_alive()

    @property
    def step_in_flight(self) -> int | None:
        """Of the save that the ranks still write, the same on all; None where there is none."""
        if self._flight is None:
            return None
        return self._flight.step

    def poll(self, any_writes: bool) -> None:
        """At a step boundary: take the save that is in flight a step further, unless `any_writes`:
        some rank is not ready for it, or was not when it said so; no save has begun since.
        """
        if self._flight is not None and not any_writes:
            with self._waiting():
                self._exchange(final=False)
        if self._publishing is not None and not self._publishing[1].is_alive():
            self._report_published()

    def finish(self) -> None:
        """Wait until nothing is in flight;
        call it before the engines change otherwise than by training.
        """
        with self._waiting():
            self._land(final=False)

    def stall(self) -> float:
        """Fraction of the time since the last call that the training thread spent in here."""
        now = time.perf_counter()
        fraction = self._waited / max(now - self._since, 1e-9)
        self._waited = 0.0
        self._since = now
        return fraction

    @property
    def host_bytes(self) -> int:
        """Memory that the copies take on this rank."""
        return self._host_copy.bytes

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - start

    # --- taking off -------------------------------------------------------------------------------

    def _land_the_one_before(self, step: int) -> None:
        start = time.perf_counter()
        before = self._flight
        self._land(final=False)
        seconds = time.perf_counter() - start
        if before is not None and seconds > _LONG_WAIT_SECONDS and self._world.is_main:
            warn(
                f"step {step}: training waited {human_seconds(seconds)} until the checkpoint of"
                f" step {before.step} was written; checkpoint.every = {self._settings.every} is"
                " shorter than a save takes"
            )

    def _new_folder(self, step: int, final: bool) -> Path | None:
        """The hidden folder, the same on every rank; None where it cannot be made."""
        name: str | None = None
        problem: str | None = None
        bug: Exception | None = None
        if self._world.is_main:
            try:
                folder = folders.new_partial(self._run, step)
                name = folder.name
                check_room(folder, self._slices.checkpoint_bytes())
            except OSError as error:
                problem = why(error)
            except Exception as error:
                bug = error
        raise_together(bug, self._world)
        name, problem = broadcast_object([name, problem], self._world)
        if problem:
            self._give_up(step, problem, final)
            return None
        return self._run.checkpoints / str(name)

    def _take_off(self, step: int, folder: Path, content: Content, at_once: bool) -> None:
        tensors = self._slices.tensors()
        if not at_once:
            tensors = self._host_copy.take(tensors)

        def write() -> dict[str, Any]:
            if not at_once:
                self._host_copy.ready()
            return write_share(folder, tensors, self._world.rank)

        self._flight = _Flight(step, folder, content, Job(f"checkpoint-{step}", write))
        if at_once:
            self._flight.writing.run()
        else:
            self._flight.writing.start()

    # --- landing ----------------------------------------------------------------------------------

    def _land(self, final: bool) -> None:
        """Wait for what is in flight, to its very end."""
        if self._flight is not None:
            self._flight.writing.wait()
            self._exchange(final)
        if self._publishing is not None:
            self._publishing[1].wait()
            self._report_published()

    def _exchange(self, final: bool) -> None:
        """All ranks have written: rank 0 gets to know what, and publishes it."""
        assert self._flight is not None
        flight = self._flight
        self._flight = None
        error = flight.writing.error
        raise_together(None if isinstance(error, OSError) else error, self._world)
        if isinstance(error, OSError):
            problem = why(error)
        else:
            problem = None
        ranks = gather_objects([flight.writing.result, problem], self._world)
        problems = dict.fromkeys(problem for _, problem in ranks if problem)
        if problems:
            self._give_up(flight.step, "; ".join(problems), final)
            return
        written = {
            name: FileEntry(**entry) for entries, _ in ranks for name, entry in entries.items()
        }
        if final:
            self._publish_now(flight, written)
        elif self._world.is_main:
            job = Job(f"checkpoint-{flight.step}-publish", lambda: self._publish(flight, written))
            self._publishing = (flight.step, job)
            if self._settings.asynchronous:
                job.start()
            else:
                job.run()

    def _publish_now(self, flight: _Flight, written: dict[str, FileEntry]) -> None:
        problem: str | None = None
        bug: Exception | None = None
        if self._world.is_main:
            try:
                self._publish(flight, written)
            except OSError as error:
                problem = why(error)
            except Exception as error:
                bug = error
        raise_together(bug, self._world)
        problem = broadcast_object(problem, self._world)
        if problem:
            self._give_up(flight.step, problem, final=True)
        elif self._world.is_main:
            self._say_saved(flight.step)

    def _publish(self, flight: _Flight, written: dict[str, FileEntry]) -> None:
        self._publisher.publish(
            flight.step, flight.folder, flight.content, written, self._slices.entries
        )

    def _report_published(self) -> None:
        """Rank 0: the background has ended; say how."""
        assert self._publishing is not None
        (step, job) = self._publishing
        self._publishing = None
        if job.error is None:
            self._say_saved(step)
        elif isinstance(job.error, OSError):
            self._give_up(step, why(job.error), final=False)
        # which the next step boundary raises on all ranks together
        elif not isinstance(job.error, LostLockError):
            raise job.error

    def _say_saved(self, step: int) -> None:
        say(f"step {step}: checkpoint {self._run.checkpoint(step)}")

    def _give_up(self, step: int, problem: str, final: bool) -> None:
        """The checkpoint of `step` cannot be: remove its rests, say so;
        a final one ends the run.
        """
        what = (
            f"{self._run.checkpoints}: the checkpoint of step {step} cannot be written: {problem}"
        )
        # what is there may be the other one's
        if self._world.is_main and not lock.is_lost(self._run):
            folders.remove_leftovers(self._run)
            memory.note_failed(self._run, step, problem)
        if final:
            raise on_every_rank(
                StorageError(
                    f"{what}. The checkpoints before it are untouched; make it writable and start"
                    " again"
                )
            )
        if self._world.is_main:
            failures = (memory.saving(self._run) or Saving(failures=1)).failures
            if failures > 1:
                again = f" ({failures} tries in a row)"
            else:
                again = ""
            following = (step // self._settings.every + 1) * self._settings.every
            warn(
                f"{what}{again}. The checkpoints before it are untouched; training goes on and"
                f" tries again at step {following}"
            )
