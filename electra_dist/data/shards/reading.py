"""Reading blocks: any block of any shard, in one read, checked before anybody sees a token.

A shard is a WebDataset tar; its samples are blocks (`blocks`). Where a block is, is in the table of
its split (`tables`), or in version 1 in the shard's index. A read takes no more bytes than a block
of these counts can have, and passes four gates: names and sizes of the members, the checksum, the
arrays, the ids. The names hold the number of the block, so that a wrong entry of the table leads to
an error and never to other tokens.

Shards of version 1 may have no checksums; `electra-dist data upgrade` adds them.
"""

from __future__ import annotations

import functools
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from electra_dist.data.shards.ahead import ReadAhead
from electra_dist.data.shards.blocks import Block, DamageError
from electra_dist.data.shards.checking import (
    Entry,
    block_checksum,
    block_name,
    block_size,
    checked_block,
    damage,
)
from electra_dist.data.shards.facts import ShardFacts, SplitName, shard_name
from electra_dist.data.shards.fetching import RemoteBlocks
from electra_dist.data.shards.files import REPLACE, explained
from electra_dist.data.shards.indexes import ShardIndex, read_index
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.shards.tables import TAR_STEP, BlockTable, Records, ShardRows
from electra_dist.errors import DataError
from electra_dist.files.reading import open_regular
from electra_dist.parallel import signs

__all__ = [
    "Block",
    "BlockReader",
    "Entry",
    "ShardIndex",
    "block_checksum",
    "block_name",
    "block_size",
    "checked_block",
    "damage",
    "ends_of_shards",
    "open_index",
    "read_block",
    "shard_name",
    "sign_of_data",
]

#: Indexes of version 1 that a reader keeps; each is some 30 KB in memory.
_INDEXES = 256


def sign_of_data(detail: str) -> None:
    """A sign of life of whoever waits for data in this process."""
    signs.sign(detail, within="data")


class BlockReader:
    """The blocks of one split as one sequence, 0 to `len(reader)` - 1, in the order of the
    manifest's shards.

    `tell` hears which block is about to be read. Raises `DataError` when the table of blocks is
    gone or of another size.
    """

    def __init__(
        self, manifest: Manifest, split: SplitName, tell: Callable[[str], None] = sign_of_data
    ) -> None:
        self._tell = tell
        self._blocks = _Blocks(manifest, split)
        self._ahead = ReadAhead(self._blocks.read)

    def __len__(self) -> int:
        return len(self._blocks)

    def expect(self, blocks: Iterable[int]) -> None:
        """Begin to read `blocks`, which `read` will be asked for, in threads."""
        self._ahead.expect(blocks)

    def read(self, block: int) -> Block:
        """Block number `block` of the split;
        raises `DataError` when its shard is gone, unreadable or damaged.
        """
        self._tell(self._blocks.describe(block))
        return self._ahead.take(block)


class _Blocks:
    """Reads any block of a split, in any thread."""

    def __init__(self, manifest: Manifest, split: SplitName) -> None:
        self._manifest = manifest
        self._shards = manifest.split(split).shards
        self._index = open_index(manifest, split)
        self._ends = ends_of_shards(manifest, split)
        self._remote: RemoteBlocks | None = None
        if manifest.remote is not None:
            self._remote = RemoteBlocks(manifest, manifest.remote)

    def __len__(self) -> int:
        if len(self._ends):
            return int(self._ends[-1])
        return 0

    def describe(self, block: int) -> str:
        """Where a block is, for people."""
        number, inside = self._locate(block)
        return f"block {inside} of {self._manifest.place(self._shards[number].tar.name)}"

    def read(self, block: int) -> Block:
        """Block number `block` of the split, checked; raises `DataError`."""
        number, inside = self._locate(block)
        shard = self._shards[number]
        entry = self._index.entry(number, inside)
        if self._manifest.latency_seconds:
            time.sleep(self._manifest.latency_seconds)
        try:
            if self._remote is not None:
                return self._remote.read(shard, inside, entry)
            return read_block(self._manifest, shard, inside, entry)
        except DamageError as error:
            problem = self._index.problem(number)
            place = self._manifest.place(shard.tar.name)
            raise DataError(problem or damage(place, inside, error)) from error

    def _locate(self, block: int) -> tuple[int, int]:
        """The shard of a block, and its number in it."""
        if not 0 <= block < len(self):
            raise IndexError(f"block {block} of {len(self)}")
        number = int(np.searchsorted(self._ends, block, side="right"))
        return number, block - int(self._ends[number]) + self._shards[number].blocks


def read_block(manifest: Manifest, shard: ShardFacts, inside: int, entry: Entry) -> Block:
    """Block `inside` of one shard, checked.

    Raises `DamageError` when it is damaged, `DataError` when it is gone or unreadable.
    """
    size = block_size(manifest, shard, entry)
    content = _read(manifest.path / shard.tar.name, entry.offset, size.most_bytes)
    return checked_block(content, shard, inside, entry, manifest)


def _read(path: Path, offset: int, count: int) -> bytes:
    """At most `count` bytes from `offset`; fewer at the end of the file."""
    with explained(path), open_regular(path) as file:
        file.seek(offset)
        return file.read(count)


# --- where the blocks are -------------------------------------------------------------------------


class Index(Protocol):
    """Where the blocks of each shard of a split are."""

    def entry(self, shard: int, inside: int) -> Entry:
        """Of block `inside` of a shard."""

    def entries(self, shard: int) -> list[Entry]:
        """Of all blocks of a shard."""

    def problem(self, shard: int) -> str | None:
        """What is wrong with what this index says of a shard."""


def open_index(manifest: Manifest, split: SplitName) -> Index:
    """The table of blocks, or in version 1 the indexes of the shards."""
    if manifest.facts.tables is None:
        return _Files(manifest, split)
    return _Table(manifest, split)


def ends_of_shards(manifest: Manifest, split: SplitName) -> npt.NDArray[np.int64]:
    """(shards,) the number of the block after the last one of each shard."""
    shards = manifest.split(split).shards
    if isinstance(shards, ShardRows):
        return np.cumsum(shards.records["blocks"], dtype=np.int64)
    return np.cumsum([shard.blocks for shard in shards], dtype=np.int64)


class _Table:
    """One table for all shards, read an entry at a time."""

    def __init__(self, manifest: Manifest, split: SplitName) -> None:
        assert manifest.facts.tables is not None
        facts = manifest.facts.tables[split].blocks
        manifest.have(facts)
        shards = manifest.split(split).shards
        assert isinstance(shards, ShardRows)
        self._shards = shards
        self._ends = ends_of_shards(manifest, split)
        self._table = BlockTable(manifest.path, facts, manifest.split(split).blocks)
        self._checksums = manifest.facts.block_checksums is not None

    def entry(self, shard: int, inside: int) -> Entry:
        return self._entry(self._records(shard, inside, 1)[0].tolist())

    def entries(self, shard: int) -> list[Entry]:
        return [self._entry(record) for record in self._all(shard).tolist()]

    def problem(self, shard: int) -> str | None:
        if zlib.crc32(self._all(shard).tobytes()) == self._shards.records["blocks_crc32"][shard]:
            return None
        name = self._shards[shard].tar.name
        return f"{self._table.path}: its entries of {name} are damaged; {REPLACE}"

    def _all(self, shard: int) -> Records:
        return self._records(shard, 0, int(self._shards.records["blocks"][shard]))

    def _records(self, shard: int, inside: int, count: int) -> Records:
        blocks = int(self._shards.records["blocks"][shard])
        return self._table.read(int(self._ends[shard]) - blocks + inside, count)

    def _entry(self, record: tuple[int, int, int, int]) -> Entry:
        start, tokens, documents, crc32 = record
        if self._checksums:
            return Entry(start * TAR_STEP, tokens, documents, crc32)
        return Entry(start * TAR_STEP, tokens, documents, None)


class _Files:
    """An index file for each shard, which has its own SHA-256; the last ones are kept."""

    def __init__(self, manifest: Manifest, split: SplitName) -> None:
        self._manifest = manifest
        self._shards = manifest.split(split).shards
        self._open = functools.lru_cache(maxsize=_INDEXES)(self._read)

    def entry(self, shard: int, inside: int) -> Entry:
        index = self._open(shard)
        crc32 = index.crc32[inside] if index.crc32 else None
        return Entry(index.offsets[inside], index.tokens[inside], index.documents[inside], crc32)

    def entries(self, shard: int) -> list[Entry]:
        return [self.entry(shard, inside) for inside in range(self._shards[shard].blocks)]

    def problem(self, shard: int) -> str | None:
        return None  # it was compared with its SHA-256 when it was opened

    def _read(self, shard: int) -> ShardIndex:
        facts = self._manifest.facts
        checksums = facts.block_checksums is not None
        found = self._shards[shard]
        if found.index is not None:
            self._manifest.have(found.index)
        return read_index(self._manifest.path, found, facts.block_tokens, checksums)
