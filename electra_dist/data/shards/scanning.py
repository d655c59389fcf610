"""One pass over a shard's file: its blocks, one after the other, and the SHA-256 of the whole.

Comes in: a shard, and where its blocks are. Goes out: the bytes of each block, for whoever checks
them. A block is in memory at a time, whatever the size of the shard; of a shard at a URL also a
piece of the stream, and nothing of it is kept on the disk.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from electra_dist.data.shards.blocks import DamageError
from electra_dist.data.shards.facts import ShardFacts
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.shards.reading import Entry, block_size
from electra_dist.files.reading import open_regular

_CHUNK = 4 << 20


class ShardScan:
    """The blocks of one shard from one pass over its file, which also gives its SHA-256.

    Iterating gives the number of each block and the bytes from its start on; blocks whose entries
    cannot be true come as no bytes. Raises `DataError` for a link or a special file, and for a URL
    that cannot be read; `OSError`.
    """

    def __init__(self, manifest: Manifest, shard: ShardFacts, entries: list[Entry]) -> None:
        self._manifest = manifest
        self._shard = shard
        self._entries = entries
        self._digest = hashlib.sha256()
        self._position = 0
        self._file = _open(manifest, shard)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        starts = [entry.offset for entry in self._entries] + [self._shard.tar.bytes]
        for inside, entry in enumerate(self._entries):
            try:
                most = block_size(self._manifest, self._shard, entry).most_bytes
            except DamageError:
                yield inside, b""
                continue
            if entry.offset < self._position:
                yield inside, b""
                continue
            self._pass_over(entry.offset - self._position)
            yield inside, self._take(max(0, min(most, starts[inside + 1] - entry.offset)))

    def sha256(self) -> str:
        """Of the whole file, whose rest is read now."""
        while self._take(_CHUNK):
            pass
        return self._digest.hexdigest()

    @property
    def bytes_read(self) -> int:
        """After `sha256` the bytes of the file; at a URL one too many stands for any excess."""
        return self._position

    def _pass_over(self, count: int) -> None:
        while count > 0:
            taken = len(self._take(min(count, _CHUNK)))
            if not taken:
                return
            count -= taken

    def _take(self, count: int) -> bytes:
        content = self._file.read(count)
        self._digest.update(content)
        self._position += len(content)
        return content

    def __enter__(self) -> ShardScan:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _open(manifest: Manifest, shard: ShardFacts) -> BinaryIO:
    if manifest.remote is None:
        return open_regular(manifest.path / shard.tar.name)
    pieces = _Pieces(manifest.remote.stream(shard.tar))
    return cast(BinaryIO, io.BufferedReader(pieces, _CHUNK))


class _Pieces(io.RawIOBase):
    """Bytes that come in pieces, as a file that is read from first to last."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._ready = memoryview(piece)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
