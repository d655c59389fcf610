"""One pass over a shard's file: its blocks, one after the other, and the SHA-256 of the whole.

Comes in: a shard, and where its blocks are. Goes out: the bytes of each block, for whoever checks
them. A block is in memory at a time, whatever the size of the shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from electra_dist.data.shards.blocks import DamageError
from electra_dist.data.shards.facts import ShardFacts
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.shards.reading import Entry, block_size
from electra_dist.files.reading import open_regular

_CHUNK = 4 << 20


class ShardScan:
    """The blocks of one shard from one pass over its file, which also gives its SHA-256.

    Iterating gives the number of each block and the bytes from its start on; blocks whose entries
    cannot be true come as no bytes. Raises `DataError` for a link or a special file, `OSError`.
    """

    def __init__(self, manifest: Manifest, shard: ShardFacts, entries: list[Entry]) -> None:
        self._manifest = manifest
        self._shard = shard
        self._entries = entries
        self._digest = hashlib.sha256()
        self._position = 0
        self._file = open_regular(manifest.path / shard.tar.name)

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
