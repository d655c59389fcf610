"""Small files that others may have written, or that must not be lost: bounded reading, atomic writing.

Reading takes regular files only, never more than a stated number of bytes, and never waits (a FIFO, a device): the
folder may be somebody else's. Writing leaves the old content or the new, never a part and no leftovers; what the file
system refuses becomes one `StorageError`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from electra_dist.errors import StorageError, UserError

MIB = 1 << 20
_REASONS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


class NotRegularError(UserError):
    """Something else where a regular file was expected: a link, a FIFO, a device, a folder."""


class TooLargeError(UserError):
    """A file with more bytes than its kind can have."""


def open_regular(path: Path, follow: bool = False) -> BinaryIO:
    """A regular file, open for reading; never waits, whatever lies there.

    The last part of the path may be a link with `follow` only. Raises `NotRegularError` for anything but a regular
    file, `FileNotFoundError` and other `OSError`s as they are.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL in the name
        raise NotRegularError(f"{str(path)!r}: is no name of a file") from error
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise NotRegularError(f"{path}: is a link, expected a regular file; put the file itself there") from error
        if error.errno == errno.ENXIO:
            raise NotRegularError(f"{path}: is a special file, expected a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(f"{path}: is not a regular file")
    return open(descriptor, "rb")


def read_bounded(path: Path, limit: int, follow: bool = False) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises what `open_regular` raises, and `TooLargeError` above the limit.
    """
    with open_regular(path, follow) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TooLargeError(f"{path}: is larger than {limit:,} bytes, the most that such a file can have")
    return content


def read_json(path: Path, limit: int = 16 * MIB, follow: bool = False) -> Any:
    """`read_bounded` as JSON; raises `ValueError` too, when it is none (too deep included)."""
    try:
        return json.loads(read_bounded(path, limit, follow))
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error


@contextlib.contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """A block that writes `what` at `path`: what the file system refuses becomes a `StorageError` that says so."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {what} cannot be written: {reason(error)}{advice(error)}") from error


def reason(error: OSError) -> str:
    """Why the file system refused, in words."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def advice(error: OSError) -> str:
    """What to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "; make room (or raise the quota), then start again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "; check who may write there, or set run.dir to another place"
    return "; run.dir must lie where all nodes can write"


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that `path` holds the old content or the new, never a part: temporary name, fsync, rename.

    Raises `OSError`; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_new(path: Path, content: bytes) -> None:
    """Make the file `path`, which must not exist, with `content` safely on the disk; raises `OSError`."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def open_to_readers(path: Path) -> None:
    """Give `path` the permissions that any new file gets here; safetensors makes its files private to their owner."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.mode")
    probe.touch()
    path.chmod(probe.stat().st_mode)
    probe.unlink()


def write_json(path: Path, content: Any) -> None:
    """`write_atomically` of indented JSON."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
