"""What this process holds: the pulse of a lease, and whether it still counts."""

from __future__ import annotations

import contextlib
import os
import threading
import time

from electra_dist.errors import LostLockError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.lock.holder import Holder, Timing, content_of
from electra_dist.runs.lock.leases import Entry, folder_of, look, newest_of, refresh


def check(run: RunDir, fresh: bool = False) -> None:
    """Raise `LostLockError` when this process held the lock of `run` and another has taken it over.

    Costs nothing as long as the pulse beats; `fresh` looks into the folder (milliseconds), for what
    must not go wrong. A process that never took the lock is not asked.
    """
    lease = _held.get(_key(run))
    if lease is not None:
        lease.check(fresh)


def is_lost(run: RunDir) -> bool:
    """`check` as a question."""
    try:
        check(run, fresh=True)
    except LostLockError:
        return True
    return False


def give_back() -> None:
    """Give back what this process holds, for one that is about to end without leaving `hold`."""
    for lease in list(_held.values()):
        lease.release()


#: What this process holds, by the real path of the run:
#: a lock belongs to a process, not to an object.
_held: dict[str, Lease] = {}


def _key(run: RunDir) -> str:
    return os.path.realpath(run.path)


def note(run: RunDir, lease: Lease | None) -> None:
    """Remember what this process holds of `run`; None: nothing any more."""
    if lease is None:
        _held.pop(_key(run), None)
    else:
        _held[_key(run)] = lease


class Lease:
    """A lease of this process: its pulse, and whether it is still the highest."""

    def __init__(self, run: RunDir, number: int, holder: Holder, timing: Timing) -> None:
        self.token = holder.token
        self._run = run
        self._number = number
        self._holder = holder
        self._pulse_seconds = timing.pulse
        self._path = folder_of(run) / f"{number:08d}.json"
        self._pid = os.getpid()
        self._lost: str | None = None
        self._confirmed = seconds_now()
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def check(self, fresh: bool = False) -> None:
        """Raise `LostLockError` when the lease is not ours any more."""
        if os.getpid() != self._pid:  # a fork of the holder
            return
        silent = seconds_now() - self._confirmed
        if fresh or silent > 3 * self._pulse_seconds:  # stopped, or suspended with the machine
            self._pulse()
            self._confirm(fresh=True)
        if self._lost is not None:
            raise LostLockError(
                f"{self._run.path}: {self._lost}; this process had given no sign of life for too"
                " long (stopped? a file system that did not answer?) and writes nothing more. What"
                " it saved before is whole, and the other one goes on from there"
            )

    def release(self) -> None:
        """Give it back; a lease that is not ours any more stays as it is."""
        self._over.set()
        self._thread.join(3 * self._pulse_seconds)  # a file system that does not answer holds it
        with contextlib.suppress(OSError):  # the next one will find a dead process
            self._path.rename(self._path.with_suffix(".released"))

    def _beat(self) -> None:
        while self._lost is None and not self._over.wait(self._pulse_seconds):
            self._pulse()
            self._confirm()

    def _pulse(self) -> None:
        """Change the lease: its time, and its content where there is room for that."""
        self._beats += 1
        with contextlib.suppress(OSError):  # a full disk still takes the time
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, content_of(self._holder, self._beats), 0)
            finally:
                os.close(descriptor)
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def _confirm(self, fresh: bool = False) -> None:
        """Look who is the highest; a folder that cannot be read says nothing."""
        try:
            if fresh:
                refresh(self._path)
            newest = newest_of(self._path.parent)
            self._lost = self._lost or self._loss(newest)
        except OSError:
            return
        self._confirmed = seconds_now()

    def _loss(self, newest: Entry | None) -> str | None:
        if newest is not None and newest.number == self._number and not newest.released:
            return None
        if newest is None or newest.number <= self._number:
            return "its lock was removed while it trained"
        other = None
        with contextlib.suppress(OSError):
            other = look(newest.path).holder
        return f"its lock was taken over by {other.name() if other else 'another process'}"


def seconds_now() -> float:
    """Seconds that go on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
