"""Taking the lock: looks at who holds it, waits where there is reason to, gives up or takes it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from electra_dist.errors import LockedError, WaitInterruptedError
from electra_dist.files.reading import NotRegularError
from electra_dist.files.writing import writing
from electra_dist.runs.directory import RunDir
from electra_dist.runs.lock import held
from electra_dist.runs.lock.held import Lease, seconds_now
from electra_dist.runs.lock.holder import HANDED_DOWN, TRAINING, Holder, Timing, content_of, myself
from electra_dist.runs.lock.leases import (
    Entry,
    Look,
    clean,
    create,
    folder_of,
    look,
    newest_of,
    refresh,
)
from electra_dist.runs.lock.slurm import job_is_over

_POLL_SECONDS = 0.25
#: Between the decision that a silent holder is dead and the first thing that we do.
_SETTLE_SECONDS = 1.0
#: Shorter waits are not worth a line.
_SILENT_WAIT_SECONDS = 1.0


@contextlib.contextmanager
def hold(
    run: RunDir,
    purpose: str = TRAINING,
    *,
    brief: bool = False,
    environment: Mapping[str, str] = os.environ,
    tell: Callable[[str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    timing: Timing | None = None,
) -> Iterator[Lease]:
    """Hold the lock of `run`, whose folder is made where there is none.

    purpose      what for; `brief` tells others to wait for the end of it instead of giving up
    environment  names the Slurm job and cluster, and the lease that `launch local` handed down
    tell         gets a line where there is something to wait for (default: standard error)
    stop         asked while waiting

    Raises `LockedError` when somebody else holds it and lives, `WaitInterruptedError` when `stop`
    says so, `StorageError` when nothing can be written there.
    """
    lease = _Taking(run, purpose, brief, environment, tell or _say, stop, timing or Timing()).take()
    held.note(run, lease)
    try:
        yield lease
    finally:
        held.note(run, None)
        lease.release()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Watch:
    """A lease that is not ours, from the first look at it."""

    def __init__(self, entry: Entry, look: Look) -> None:
        self.entry = entry
        self.look = look
        self.started = self.changed_at = seconds_now()
        self.changes = 0
        self.slurm_asked = False

    def again(self, look: Look) -> None:
        if look.stamp != self.look.stamp:
            self.changes += 1
            self.changed_at = seconds_now()
        if look.holder:
            self.look = look
        else:
            self.look = look._replace(holder=self.look.holder)

    @property
    def holder(self) -> Holder | None:
        return self.look.holder

    @property
    def waited(self) -> float:
        return seconds_now() - self.started

    @property
    def silent(self) -> float:
        return seconds_now() - self.changed_at


class _Taking:
    """One attempt to take the lock: looks, waits where there is reason to, gives up or takes it."""

    def __init__(
        self,
        run: RunDir,
        purpose: str,
        brief: bool,
        environment: Mapping[str, str],
        tell: Callable[[str], None],
        stop: Callable[[], bool],
        timing: Timing,
    ) -> None:
        self._run = run
        self._folder = folder_of(run)
        self._tell = tell
        self._stop = stop
        self._timing = timing
        self._environment = environment
        self._handed = environment.get(HANDED_DOWN)
        self._me = myself(purpose, brief, environment, timing)
        self._watch: _Watch | None = None
        self._told = False

    def take(self) -> Lease:
        """Until it is ours; raises what `hold` raises."""
        with writing(self._folder, "the lock of the run"):
            while True:
                self._folder.mkdir(parents=True, exist_ok=True)
                newest = newest_of(self._folder)
                if newest is None or newest.released or self._is_over(newest):
                    if newest:
                        number = newest.number + 1
                    else:
                        number = 1
                    if self._make(number):
                        return Lease(self._run, number, self._me, self._timing)
                elif self._stop():
                    raise WaitInterruptedError(
                        f"{self._run.path}: interrupted while waiting for its lock"
                    )
                else:
                    time.sleep(_POLL_SECONDS)

    def _make(self, number: int) -> bool:
        path = self._folder / f"{number:08d}.json"
        if not create(path, content_of(self._me, 0), self._me.token):
            return False
        refresh(path)
        newest = newest_of(self._folder)
        if newest is None or newest.path != path:  # decided on an old listing
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        clean(self._folder, number)
        return True

    # --- is the holder dead? ----------------------------------------------------------------------

    def _is_over(self, entry: Entry) -> bool:
        """Whether the holder of this lease is dead, or hands it to us;
        raises `LockedError` when it surely is not.
        """
        watch = self._watching(entry)
        if watch is None:
            return False
        holder = watch.holder
        if holder is not None and holder.token == self._handed:
            return True
        if holder:
            alive = holder.lives()
        else:
            alive = None
        if alive is False or (alive is None and self._slurm_knows(watch)):
            return True
        if alive is None and watch.silent >= self._patience(holder):
            self._say_gone(watch)
            # it may wake just now, and finish a write before it looks for us
            time.sleep(_SETTLE_SECONDS)
            return True
        if alive or watch.changes:
            self._wait_or_refuse(watch, self._timing.dying if alive else 0.0)
        else:
            dead_after = self._patience(holder)
            self._say_waiting(
                watch, f"silent for {watch.silent:.0f} s, counts as dead after {dead_after:.0f} s"
            )
        return False

    def _watching(self, entry: Entry) -> _Watch | None:
        """What has been seen of this lease up to now; None when it was given back just now."""
        try:
            seen = look(entry.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotRegularError(
                    f"{entry.path}: is a link, expected a regular file"
                ) from error
            raise
        if self._watch is None or self._watch.entry != entry:
            self._watch = _Watch(entry, seen)
        else:
            self._watch.again(seen)
        return self._watch

    def _patience(self, holder: Holder | None) -> float:
        if holder:
            return holder.silent_seconds
        return self._timing.silent

    def _slurm_knows(self, watch: _Watch) -> bool:
        """Slurm is asked once a lease: a job that ends while we wait falls silent anyway."""
        if watch.holder is None or watch.slurm_asked:
            return False
        watch.slurm_asked = True
        return job_is_over(watch.holder, self._environment)

    # --- it lives ---------------------------------------------------------------------------------

    def _wait_or_refuse(self, watch: _Watch, wait: float) -> None:
        """Let one that is about to end have its time, `wait` at least; refuse otherwise."""
        holder = watch.holder
        if holder and holder.brief:
            wait = self._timing.brief
        elif holder and self._is_earlier_start(holder):
            wait = self._timing.requeue
        if watch.waited >= wait:
            raise LockedError(self._refusal(watch, wait))
        if wait > self._timing.dying:
            self._say_waiting(
                watch, f"it lives, and should end by itself; waiting at most {wait:.0f} s"
            )

    def _is_earlier_start(self, holder: Holder) -> bool:
        """Whether it is this Slurm job before a requeue:
        Slurm is ending it, or could not reach its node.
        """
        mine = (self._me.job_id, self._me.cluster)
        return (
            mine[0] is not None
            and mine == (holder.job_id, holder.cluster)
            and holder.restart < self._me.restart
        )

    # --- words ------------------------------------------------------------------------------------

    def _refusal(self, watch: _Watch, waited: float) -> str:
        holder = watch.holder
        if holder is None:
            return f"{watch.entry.path}: another process takes this lock just now; try again"
        since = datetime.fromtimestamp(holder.since).astimezone()
        last = datetime.fromtimestamp(watch.look.changed).astimezone()
        if waited > self._timing.dying:
            still = f", and still does after {waited:.0f} s"
        else:
            still = ""
        return (
            f"{self._run.path}: {holder.name()} {holder.purpose} already (since"
            f" {since:%Y-%m-%d %H:%M:%S %z}, last sign of life {last:%H:%M:%S}){still}; nothing was"
            f" changed. Wait for it, end it with `electra-dist stop {self._run.path}`, or set"
            " another run.name"
        )

    def _say_gone(self, watch: _Watch) -> None:
        if watch.holder is not None:
            self._tell(
                f"{self._run.path}: {watch.holder.name()} is gone: no sign of life for"
                f" {watch.silent:.0f} s"
            )

    def _say_waiting(self, watch: _Watch, why: str) -> None:
        """Once, and not where the wait is over in a moment."""
        if self._told or watch.waited < _SILENT_WAIT_SECONDS:
            return
        self._told = True
        holder = watch.holder
        if holder:
            who = f"{holder.name()}, which {holder.purpose}"
        else:
            who = "a process that just takes it"
        self._tell(f"{self._run.path}: waiting for the lock of {who}: {why}")
