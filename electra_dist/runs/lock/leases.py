"""The leases of a run as files: made so that exactly one of many makes each,
looked at, removed when they are old.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from electra_dist.runs.directory import RunDir
from electra_dist.runs.lock.holder import Holder, parsed

_LEASE = re.compile(r"^(\d{8,})\.(json|released)$")
#: Leases before the newest that are left where they are, for those who still look at them.
_KEPT = 8
_LONGEST_LEASE = 65_536
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


def folder_of(run: RunDir) -> Path:
    """Where the leases of a run are."""
    return run.path / "lock"


# --- looking --------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One lease in the folder."""

    number: int
    released: bool
    path: Path


class Look(NamedTuple):
    """What a lease shows: `stamp` differs after every sign of life;
    no holder while it is being written.
    """

    holder: Holder | None
    stamp: tuple[object, ...]
    changed: float


def entries(folder: Path) -> list[Entry]:
    """All leases, ascending; of one number, the released one last."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = ((_LEASE.match(name), name) for name in names)
    return sorted(
        Entry(int(match[1]), match[2] == "released", folder / name)
        for match, name in matches
        if match
    )


def newest_of(folder: Path) -> Entry | None:
    """The lease that counts: the one with the highest number."""
    found = entries(folder)
    if found:
        return found[-1]
    return None


def look(path: Path) -> Look:
    """Opened anew each time: that is when a client of NFS asks the server for what has changed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, _LONGEST_LEASE)
        state = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return Look(
        parsed(content), (state.st_ino, state.st_mtime_ns, state.st_size, content), state.st_mtime
    )


@dataclass(frozen=True)
class Holding:
    """The lease that counts, as `status` shows it;
    `alive` is None when only watching it could tell.
    """

    holder: Holder
    alive: bool | None
    last_sign: float


def holding(run: RunDir) -> Holding | None:
    """Who holds the lock of `run`, without waiting; None when nobody does."""
    try:
        newest = newest_of(folder_of(run))
        if newest is None or newest.released:
            return None
        seen = look(newest.path)
    except OSError:
        return None
    if seen.holder:
        return Holding(seen.holder, seen.holder.lives(), seen.changed)
    return None


# --- making ---------------------------------------------------------------------------------------


def create(path: Path, content: bytes, token: str) -> bool:
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
    """A network file system may lose the answer and send the request again,
    which then fails: the links tell.
    """
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


def clean(folder: Path, number: int) -> None:
    """What leases long before `number` left behind."""
    for name in os.listdir(folder):
        match = re.match(r"^\.?(\d{8,})\.", name)
        if match and int(match[1]) < number - _KEPT:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def refresh(lease: Path) -> None:
    """Change the folder, so that a client of a network file
    system asks the server what is in it.
    """
    probe = lease.with_name(f".{lease.stem}.{secrets.token_hex(4)}.probe")
    with contextlib.suppress(OSError):
        os.link(lease, probe)
    with contextlib.suppress(OSError):
        probe.unlink()
