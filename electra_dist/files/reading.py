"""Small files that others may have written: bounded reading.

Reading takes regular files only, never more than a stated number of bytes, and never waits (a FIFO,
a device): the folder may be somebody else's.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from electra_dist.errors import UserError

MIB = 1 << 20


class NotRegularError(UserError):
    """Something else where a regular file was expected: a link, a FIFO, a device, a folder."""


class TooLargeError(UserError):
    """A file with more bytes than its kind can have."""


def open_regular(path: Path, follow: bool = False) -> BinaryIO:
    """A regular file, open for reading; never waits, whatever lies there.

    The last part of the path may be a link with `follow` only. Raises `NotRegularError` for
    anything but a regular file, `FileNotFoundError` and other `OSError`s as they are.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL in the name
        raise NotRegularError(f"{str(path)!r}: is no name of a file") from error
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise NotRegularError(
                f"{path}: is a link, expected a regular file; put the file itself there"
            ) from error
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
        raise TooLargeError(
            f"{path}: is larger than {limit:,} bytes, the most that such a file can have"
        )
    return content


def read_json(path: Path, limit: int = 16 * MIB, follow: bool = False) -> Any:
    """`read_bounded` as JSON; raises `ValueError` too, when it is none (too deep included)."""
    try:
        return json.loads(read_bounded(path, limit, follow))
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error
