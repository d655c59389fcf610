"""One writer a run: the lock that is taken before anything in a run directory is touched (DESIGN D11).

    RUN/lock/00000007.json        the lease that counts: the one with the highest number
    RUN/lock/00000006.released    one that its holder gave back

**Taking it.** A lease is free when there is none, when the newest was given back, or when its holder is dead. It is
taken by making the file with the next number, by link(2), which succeeds for exactly one of many, on NFS and Lustre
too (where there are no links, by O_EXCL). Numbers only rise, so whoever decides on old knowledge makes a file that
exists, or one that is not the highest: both are noticed.

**Is the holder dead?** Of a process of this machine the kernel knows (`processes`). Of another one Slurm may know that
the job which it cannot outlive has ended. Otherwise the holder is watched: it touches its lease every `pulse_seconds`,
and one that nothing changes for `silent_seconds` on *our* clock counts as dead. Times in files are compared with
themselves only, never with a clock: skewed ones, future ones included, fool nobody.

**Fencing.** A holder that was stopped for longer finds a lease with a higher number when it wakes. `check` says so
before every write that matters; the holder ends with a sentence and writes nothing more.

Why not fcntl(2) or flock(2): on Lustre mounted with `localflock` they hold on one node only; on NFSv3 the lock of a
node that crashed stays until it is back; any close() of the file in the process loses an fcntl lock, and a fork shares
a flock. They would answer "free" and "taken" wrongly on just the machines that this is for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from electra_dist import processes
from electra_dist.errors import LockedError, LostLockError, WaitInterruptedError
from electra_dist.files import NotRegularError, writing
from electra_dist.rundir import RunDir

#: How `launch local` hands its lease to rank 0: the rank that names it takes it over without asking.
HANDED_DOWN = "ELECTRA_DIST_LOCK"
TRAINING = "trains this run"
_LEASE = re.compile(r"^(\d{8,})\.(json|released)$")
#: Leases before the newest that are left where they are, for those who still look at them.
_KEPT = 8
#: Leases are padded to this, so that a pulse overwrites what is there and needs no space.
_LEASE_BYTES = 1024
_LONGEST_LEASE = 65_536
_LONGEST_SILENCE = 3600.0
_POLL_SECONDS = 0.25
_SLURM_SECONDS = 20.0
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)
#: States in which Slurm has ended every process of a job. NODE_FAIL is none: the node may live on, out of its reach.
_OVER = frozenset(("CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"))


@dataclass(frozen=True)
class Timing:
    """Seconds. `silent` is written into the lease: what a holder promises is what others wait for.

    pulse     between two signs of life; network file systems show them up to a minute late
    silent    without a sign after which a holder counts as dead
    dying     for a process of this machine that has been killed to be gone
    brief     for one that holds the lock for a moment only (`launch slurm`, `checkpoint prune`)
    requeue   for the processes of an earlier start of the same Slurm job to be gone
    """

    pulse: float = 10.0
    silent: float = 100.0
    dying: float = 3.0
    brief: float = 300.0
    requeue: float = 600.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as it stands in the file.

    place, ticks     of the process, as `processes` knows them
    purpose          what it does with the run: "trains this run"
    brief            it is given back within moments
    job_id, cluster  of Slurm, or None; `restart` counts the job's requeues
    in_job           Slurm ends the process with the job (a shell of `salloc` on a login node outlives it)
    """

    token: str
    pid: int
    host: str
    place: str
    ticks: int | None
    purpose: str
    brief: bool
    job_id: str | None
    cluster: str | None
    restart: int
    in_job: bool
    since: float
    silent_seconds: float

    def name(self) -> str:
        """`process 4711 on node3 (Slurm job 17)`."""
        job = f" (Slurm job {self.job_id})" if self.job_id else ""
        return f"process {self.pid} on {self.host}{job}"

    def lives(self) -> bool | None:
        """Whether the process lives; None when that cannot be told from this machine."""
        return processes.is_alive(self.place, self.pid, self.ticks)


@dataclass(frozen=True)
class Holding:
    """The lease that counts, as `status` shows it; `alive` is None when only watching it could tell."""

    holder: Holder
    alive: bool | None
    last_sign: float


def holding(run: RunDir) -> Holding | None:
    """Who holds the lock of `run`, without waiting; None when nobody does."""
    try:
        newest = _newest(_folder(run))
        if newest is None or newest.released:
            return None
        seen = _look(newest.path)
    except OSError:
        return None
    return Holding(seen.holder, seen.holder.lives(), seen.changed) if seen.holder else None


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
    environment  names the Slurm job, and the lease that `launch local` handed down
    tell         gets a line where there is something to wait for (default: standard error)
    stop         asked while waiting

    Raises `LockedError` when somebody else holds it and lives, `WaitInterruptedError` when `stop` says so,
    `StorageError` when nothing can be written there.
    """
    lease = _Taking(run, purpose, brief, environment, tell or _say, stop, timing or Timing()).take()
    key = _key(run)
    _held[key] = lease
    try:
        yield lease
    finally:
        _held.pop(key, None)
        lease.release()


def check(run: RunDir, fresh: bool = False) -> None:
    """Raise `LostLockError` when this process held the lock of `run` and another has taken it over.

    Costs nothing as long as the pulse beats; `fresh` looks into the folder (milliseconds), for what must not go wrong.
    A process that never took the lock is not asked.
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


#: What this process holds, by the real path of the run: a lock belongs to a process, not to an object.
_held: dict[str, Lease] = {}


def _key(run: RunDir) -> str:
    return os.path.realpath(run.path)


def _folder(run: RunDir) -> Path:
    return run.path / "lock"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- a lease that we hold --------------------------------------------------------------------------------------------


class Lease:
    """A lease of this process: its pulse, and whether it is still the highest."""

    def __init__(self, run: RunDir, number: int, holder: Holder, timing: Timing) -> None:
        self.token = holder.token
        self._run, self._number, self._holder = run, number, holder
        self._pulse_seconds = timing.pulse
        self._path = _folder(run) / f"{number:08d}.json"
        self._pid = os.getpid()
        self._lost: str | None = None
        self._confirmed = _now()
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def check(self, fresh: bool = False) -> None:
        """Raise `LostLockError` when the lease is not ours any more."""
        if os.getpid() != self._pid:  # a fork of the holder
            return
        silent = _now() - self._confirmed
        if fresh or silent > 3 * self._pulse_seconds:  # stopped, or suspended with the machine
            self._pulse()
            self._confirm(fresh=True)
        if self._lost is not None:
            raise LostLockError(
                f"{self._run.path}: {self._lost}; this process had given no sign of life for too long (stopped? a file"
                " system that did not answer?) and writes nothing more. What it saved before is whole, and the other"
                " one goes on from there"
            )

    def release(self) -> None:
        """Give it back; a lease that is not ours any more stays as it is."""
        self._over.set()
        self._thread.join()
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
                os.pwrite(descriptor, _content(self._holder, self._beats), 0)
            finally:
                os.close(descriptor)
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def _confirm(self, fresh: bool = False) -> None:
        """Look who is the highest; a folder that cannot be read says nothing."""
        try:
            if fresh:
                _refresh(self._path)
            newest = _newest(self._path.parent)
            self._lost = self._lost or self._loss(newest)
        except OSError:
            return
        self._confirmed = _now()

    def _loss(self, newest: _Entry | None) -> str | None:
        if newest is not None and newest.number == self._number and not newest.released:
            return None
        if newest is None or newest.number <= self._number:
            return "its lock was removed while it trained"
        other = None
        with contextlib.suppress(OSError):
            other = _look(newest.path).holder
        return f"its lock was taken over by {other.name() if other else 'another process'}"


def _refresh(lease: Path) -> None:
    """Change the folder, so that a client of a network file system asks the server what is in it."""
    probe = lease.with_name(f".{lease.stem}.{secrets.token_hex(4)}.probe")
    with contextlib.suppress(OSError):
        os.link(lease, probe)
    with contextlib.suppress(OSError):
        probe.unlink()


def _now() -> float:
    """Seconds that go on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


# --- the files -------------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """One lease in the folder."""

    number: int
    released: bool
    path: Path


class _Look(NamedTuple):
    """What a lease shows: `stamp` differs after every sign of life; no holder while it is being written."""

    holder: Holder | None
    stamp: tuple[object, ...]
    changed: float


def _entries(folder: Path) -> list[_Entry]:
    """All leases, ascending; of one number, the released one last."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = ((_LEASE.match(name), name) for name in names)
    return sorted(_Entry(int(match[1]), match[2] == "released", folder / name) for match, name in matches if match)


def _newest(folder: Path) -> _Entry | None:
    entries = _entries(folder)
    return entries[-1] if entries else None


def _look(path: Path) -> _Look:
    """Opened anew each time: that is when a client of NFS asks the server for what has changed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, _LONGEST_LEASE)
        state = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return _Look(_parsed(content), (state.st_ino, state.st_mtime_ns, state.st_size, content), state.st_mtime)


def _parsed(content: bytes) -> Holder | None:
    try:
        found = json.loads(content)
        holder = Holder(**{field.name: found[field.name] for field in fields(Holder)})
        silence = float(holder.silent_seconds)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return holder if 0 < silence <= _LONGEST_SILENCE else None


def _content(holder: Holder, beats: int) -> bytes:
    return json.dumps(asdict(holder) | {"beats": beats}).encode().ljust(_LEASE_BYTES) + b"\n"


def _create(path: Path, content: bytes, token: str) -> bool:
    """Make the lease `path`, whole, unless there is one: exactly one of many gets True."""
    temporary = path.with_name(f".{path.stem}.{token}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return _link(temporary, path) or _linked_unheard(temporary)
    except FileNotFoundError:  # somebody cleaned up: the lock has gone on without us
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_exclusively(path, content)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _linked_unheard(temporary: Path) -> bool:
    """A network file system may lose the answer and send the request again, which then fails: the links tell."""
    return os.stat(temporary).st_nlink == 2


def _create_exclusively(path: Path, content: bytes) -> bool:
    """The same where there are no links; until the content is there, the lease names no holder."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
    return True


def _clean(folder: Path, number: int) -> None:
    """What leases long before `number` left behind."""
    for name in os.listdir(folder):
        match = re.match(r"^\.?(\d{8,})\.", name)
        if match and int(match[1]) < number - _KEPT:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


# --- taking it -------------------------------------------------------------------------------------------------------


class _Watch:
    """A lease that is not ours, from the first look at it."""

    def __init__(self, entry: _Entry, look: _Look) -> None:
        self.entry, self.look = entry, look
        self.started = self.changed_at = _now()
        self.changes = 0
        self.slurm_asked = False

    def again(self, look: _Look) -> None:
        if look.stamp != self.look.stamp:
            self.changes += 1
            self.changed_at = _now()
        self.look = look if look.holder else look._replace(holder=self.look.holder)

    @property
    def waited(self) -> float:
        return _now() - self.started

    @property
    def silent(self) -> float:
        return _now() - self.changed_at


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
        self._run, self._folder = run, _folder(run)
        self._tell, self._stop, self._timing = tell, stop, timing
        self._handed = environment.get(HANDED_DOWN)
        self._me = Holder(
            token=secrets.token_hex(8),
            pid=os.getpid(),
            host=socket.gethostname(),
            place=processes.place(),
            ticks=processes.ticks(os.getpid()),
            purpose=purpose,
            brief=brief,
            job_id=environment.get("SLURM_JOB_ID"),
            cluster=environment.get("SLURM_CLUSTER_NAME"),
            restart=_count(environment.get("SLURM_RESTART_COUNT", "")),
            in_job="SLURMD_NODENAME" in environment,
            since=time.time(),
            silent_seconds=timing.silent,
        )
        self._watch: _Watch | None = None
        self._told = False

    def take(self) -> Lease:
        with writing(self._folder, "the lock of the run"):
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                newest = _newest(self._folder)
                if newest is None or newest.released or self._is_over(newest):
                    number = newest.number + 1 if newest else 1
                    if self._make(number):
                        return Lease(self._run, number, self._me, self._timing)
                elif self._stop():
                    raise WaitInterruptedError(f"{self._run.path}: interrupted while waiting for its lock")
                else:
                    time.sleep(_POLL_SECONDS)

    def _make(self, number: int) -> bool:
        path = self._folder / f"{number:08d}.json"
        if not _create(path, _content(self._me, 0), self._me.token):
            return False
        _refresh(path)
        newest = _newest(self._folder)
        if newest is None or newest.path != path:  # decided on an old listing
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        _clean(self._folder, number)
        return True

    def _is_over(self, entry: _Entry) -> bool:
        """Whether the holder of this lease is dead, or hands it to us; raises `LockedError` when it surely is not."""
        try:
            look = _look(entry.path)
        except FileNotFoundError:  # given back just now
            return False
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotRegularError(f"{entry.path}: is a link, expected a regular file") from error
            raise
        if self._watch is None or self._watch.entry != entry:
            self._watch = _Watch(entry, look)
        else:
            self._watch.again(look)
        holder = self._watch.look.holder
        if holder is not None and holder.token == self._handed:
            return True
        alive = holder.lives() if holder else None
        if alive is False or self._is_silent(holder) or (alive is None and self._slurm_knows(holder)):
            self._explain_takeover(alive, holder)
            return True
        if alive or self._watch.changes:
            self._wait_or_refuse(holder, certain=bool(alive))
        else:
            self._tell_once(
                f"no sign of it for {self._watch.silent:.0f} s; it counts as dead after {self._patience(holder):.0f} s"
            )
        return False

    def _is_silent(self, holder: Holder | None) -> bool:
        assert self._watch is not None
        if holder is not None and holder.lives():
            return False
        return self._watch.silent >= self._patience(holder)

    def _patience(self, holder: Holder | None) -> float:
        return holder.silent_seconds if holder else self._timing.silent

    def _slurm_knows(self, holder: Holder | None) -> bool:
        """Slurm is asked once a lease: a job that ends while we wait falls silent anyway."""
        assert self._watch is not None
        if holder is None or self._watch.slurm_asked:
            return False
        self._watch.slurm_asked = True
        return _job_is_over(holder)

    def _wait_or_refuse(self, holder: Holder | None, certain: bool) -> None:
        """The holder lives. Wait for one that is about to end; refuse otherwise."""
        assert self._watch is not None
        wait = self._timing.dying if certain else 0.0
        if holder and holder.brief:
            wait = self._timing.brief
        elif holder and self._is_earlier_start(holder):
            wait = self._timing.requeue
        if self._watch.waited >= wait:
            raise LockedError(self._refusal(holder, wait))
        if wait > self._timing.dying:
            self._tell_once(f"it lives, and should end by itself; waiting at most {wait:.0f} s")

    def _is_earlier_start(self, holder: Holder) -> bool:
        """Whether it is this Slurm job before a requeue: Slurm is ending it, or could not reach its node."""
        mine = (self._me.job_id, self._me.cluster)
        return mine[0] is not None and mine == (holder.job_id, holder.cluster) and holder.restart < self._me.restart

    def _refusal(self, holder: Holder | None, waited: float) -> str:
        assert self._watch is not None
        if holder is None:
            return f"{self._watch.entry.path}: another process takes this lock just now; try again"
        since = datetime.fromtimestamp(holder.since).astimezone()
        last = datetime.fromtimestamp(self._watch.look.changed).astimezone()
        waited_for = f", and still does after {waited:.0f} s" if waited > self._timing.dying else ""
        return (
            f"{self._run.path}: {holder.name()} {holder.purpose} already (since {since:%Y-%m-%d %H:%M:%S %z}, last sign"
            f" of life {last:%H:%M:%S}){waited_for}; nothing was changed. Wait for it, end it with `electra-dist stop"
            f" {self._run.path}`, or set another run.name"
        )

    def _explain_takeover(self, alive: bool | None, holder: Holder | None) -> None:
        assert self._watch is not None
        if holder is None or alive is False or self._watch.waited < 1:
            return
        self._tell(f"{self._run.path}: {holder.name()} is gone: no sign of life for {self._watch.silent:.0f} s")

    def _tell_once(self, why: str) -> None:
        assert self._watch is not None
        if self._told or self._watch.waited < 1:
            return
        self._told = True
        holder = self._watch.look.holder
        who = f"{holder.name()}, which {holder.purpose}" if holder else "a process that just takes it"
        self._tell(f"{self._run.path}: waiting for the lock of {who}: {why}")


def _count(text: str) -> int:
    return int(text) if text.isdigit() else 0


# --- Slurm's word ----------------------------------------------------------------------------------------------------


def _job_is_over(holder: Holder) -> bool:
    """Whether Slurm says that it has ended every process of the holder's job, the holder among them."""
    if holder.job_id is None or not holder.in_job or not re.fullmatch(r"\d+", holder.job_id):
        return False
    if holder.cluster is None or holder.cluster != _cluster_here():  # another cluster may have a job of this number
        return False
    states = _ask("squeue", "-h", "--states=all", f"--jobs={holder.job_id}", "-o", "%T").split()
    return bool(states) and all(state in _OVER for state in states)


def _cluster_here() -> str | None:
    if name := os.environ.get("SLURM_CLUSTER_NAME"):
        return name
    match = re.search(r"^ClusterName\s*=\s*(\S+)", _ask("scontrol", "show", "config"), flags=re.MULTILINE)
    return match[1] if match else None


def _ask(*command: str) -> str:
    """What a command of Slurm prints; empty when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_SLURM_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
