"""Room on the disk: asked for before the work starts and while it runs, missed in one sentence."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from electra_dist.console import human_bytes
from electra_dist.errors import StorageError
from electra_dist.files.writing import reason

#: Seconds between two looks at the disk.
_PAUSE = 2.0
_GO_ON = "make room (or raise the quota), then give the same command again: it goes on"


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write into `folder`."""
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """A block that writes into `folder`: what the file system refuses is a `StorageError`."""
    try:
        yield
    except OSError as error:
        advice = "check the file system, then give the same command again: it goes on"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = _GO_ON
        raise StorageError(f"{folder}: cannot be written: {reason(error)}; {advice}") from error


class Room:
    """Watches the disk that `folder` lies on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 0.0

    def ask(self, needed: int, what: str) -> None:
        """Raise `StorageError` where there are not `needed` more bytes for `what`."""
        free = free_bytes(self._folder)
        if free < needed:
            raise StorageError(
                f"{self._folder}: {what} needs about {human_bytes(needed)} more on this disk, and"
                f" {human_bytes(free)} are free; {_GO_ON}"
            )

    def watch(self, needed: int, what: str) -> None:
        """`ask`, once in a while."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE
            self.ask(needed, what)


def size_of(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
