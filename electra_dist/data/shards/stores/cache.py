"""A folder that keeps blocks of remote shards, never above a number of bytes.

    CACHE/blocks/00 ... 3f/    buckets: each has its share of the bytes, and a lock of its own
        .used                  bytes of the files in this bucket; locked while it is changed
        ENTRY                  the bytes of one block; its time is that of its last use

Several processes of a node share it. A file appears in one rename and is never changed. Where a
bucket is full, its least recently used files go first. The bound holds at any moment: bytes are
counted before they are written, and a process that is killed in between leaves a count that is too
high, which the next clearing corrects. What is read here is checked by the caller like any other
block: a damaged entry is removed and fetched again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from electra_dist.errors import ConfigError
from electra_dist.files.reading import NotRegularError, TooLargeError, read_bounded
from electra_dist.files.writing import writing

BUCKETS = 64
#: Blocks that a bucket must have room for.
_ROOM = 4
#: The share of its bytes that a bucket is cleared to.
_CLEARED = 0.9
_USED = ".used"


class BlockCache:
    """Blocks by name in `folder`, at most `limit` bytes of them.

    `most` is the most bytes of a block. Raises `ConfigError` where there is no room for enough of
    them; `write` raises `StorageError` where the folder cannot be written.
    """

    def __init__(self, folder: Path, limit: int, most: int, buckets: int = BUCKETS) -> None:
        least = buckets * _ROOM * most
        if limit < least:
            raise ConfigError(
                f"data.cache_bytes = {limit}: blocks of these shards take up to {most:,} bytes, and"
                f" the cache needs room for {buckets * _ROOM} of them; set at least {least}"
            )
        self._folder = folder / "blocks"
        self._share = limit // buckets
        self._buckets = buckets

    def read(self, name: str, limit: int) -> bytes | None:
        """The bytes under `name`, of which there are at most `limit`; None where there are none."""
        path = self._path(name)
        try:
            content = read_bounded(path, limit)
            os.utime(path)
        except (FileNotFoundError, NotRegularError, TooLargeError):
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Keep `content` under `name`."""
        path = self._path(name)
        with writing(self._folder, "the cache of remote shards"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.parent / _USED) as used:
                if path.exists():
                    return
                if used.value + len(content) > self._share:
                    used.value = _clear(path.parent, int(_CLEARED * self._share) - len(content))
                used.value += len(content)
                temporary = path.with_name(f".{name}.tmp")
                temporary.write_bytes(content)
                temporary.replace(path)

    def remove(self, name: str) -> None:
        """Forget what is under `name`."""
        path = self._path(name)
        with writing(self._folder, "the cache of remote shards"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.parent / _USED) as used, contextlib.suppress(FileNotFoundError):
                size = path.lstat().st_size
                path.unlink()
                used.value = max(0, used.value - size)

    def _path(self, name: str) -> Path:
        bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        return self._folder / f"{bucket % self._buckets:02x}" / name


class _Count:
    """A number in a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def value(self) -> int:
        return int.from_bytes(os.pread(self._descriptor, 8, 0), "little")

    @value.setter
    def value(self, number: int) -> None:
        os.pwrite(self._descriptor, number.to_bytes(8, "little"), 0)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[_Count]:
    """The count in `path`, for this process alone."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _Count(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """A block that one process of this node runs at a time; `path` is the file of the lock."""
    with _locked(path):
        yield


def _clear(bucket: Path, left: int) -> int:
    """Remove the least recently used files until at most `left` bytes are there; returns how many
    there are.
    """
    found = []
    for entry in os.scandir(bucket):
        if entry.name == _USED or not entry.is_file(follow_symlinks=False):
            continue
        if entry.name.startswith("."):  # of a process that was killed: the lock is ours
            os.unlink(entry.path)
            continue
        status = entry.stat(follow_symlinks=False)
        found.append((status.st_mtime_ns, status.st_size, entry.path))
    found.sort()
    total = sum(size for _, size, _ in found)
    for _, size, path in found:
        if total <= left:
            break
        os.unlink(path)
        total -= size
    return total
