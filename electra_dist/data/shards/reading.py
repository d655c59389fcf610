"""Reading blocks: any block of any shard, in one read, checked before anybody sees a token.

A shard is a WebDataset tar; its samples are blocks (`blocks`). The index beside it has of each
block the offset of its first tar header, its counts and its checksum. A read takes no more bytes
than a block of these counts can have, and passes four gates: names and sizes of the members, the
checksum, the arrays, the ids.

Shards of an earlier version have no checksums; `electra-dist data checksums` adds them.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydantic

from electra_dist.data.shards.blocks import (
    LENGTHS,
    TOKENS,
    Block,
    BlockSize,
    DamageError,
    checksum,
    parse_block,
    parse_members,
)
from electra_dist.data.shards.files import CHANGED, GONE, NOT_REGULAR, REPLACE, UNREADABLE
from electra_dist.data.shards.manifest import Manifest, ShardFacts, SplitName
from electra_dist.errors import DataError
from electra_dist.files.reading import NotRegularError, TooLargeError, open_regular, read_bounded
from electra_dist.files.writing import reason
from electra_dist.parallel import signs

#: Indexes that a reader keeps; each is some 70 KB in memory.
_INDEXES = 256


@dataclass(frozen=True)
class ShardIndex:
    """Where each block of a shard starts and what it holds; entry i is block i of the shard.

    `crc32` has a checksum for each block (`blocks.checksum`), or nothing in shards of an earlier
    version.
    """

    offsets: tuple[int, ...]
    tokens: tuple[int, ...]
    documents: tuple[int, ...]
    crc32: tuple[int, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


_ADAPTER = pydantic.TypeAdapter(ShardIndex)


def block_name(shard: str, block: int) -> str:
    """Name of the sample that holds block `block` of the shard called `shard`."""
    return f"{shard}-{block:06d}"


def shard_name(split: SplitName, shard: int) -> str:
    """Name of shard `shard` without its suffix."""
    return f"{split}-{shard:05d}"


def sign_of_data(detail: str) -> None:
    """A sign of life of whoever waits for data in this process."""
    signs.sign(detail, within="data")


class BlockReader:
    """The blocks of one split as one sequence, 0 to `len(reader)` - 1, in the order of the
    manifest's shards.

    `tell` hears which block is about to be read.
    """

    def __init__(
        self, manifest: Manifest, split: SplitName, tell: Callable[[str], None] = sign_of_data
    ) -> None:
        self._manifest = manifest
        self._tell = tell
        self._shards = manifest.split(split).shards
        self._ends = list(itertools.accumulate(shard.blocks for shard in self._shards))
        self._index = functools.lru_cache(maxsize=_INDEXES)(self._load_index)

    def __len__(self) -> int:
        if self._ends:
            return self._ends[-1]
        return 0

    def read(self, block: int) -> Block:
        """Block number `block` of the split;
        raises `DataError` when its shard is gone, unreadable or damaged.
        """
        if not 0 <= block < len(self):
            raise IndexError(f"block {block} of {len(self)}")
        shard = bisect.bisect_right(self._ends, block)
        inside = block - (self._ends[shard - 1] if shard else 0)
        self._tell(f"block {inside} of {self._manifest.path / self._shards[shard].tar.name}")
        return read_block(self._manifest, self._shards[shard], self._index(shard), inside)

    def _load_index(self, shard: int) -> ShardIndex:
        return read_index(self._manifest, self._shards[shard])


def read_block(manifest: Manifest, shard: ShardFacts, index: ShardIndex, inside: int) -> Block:
    """Block `inside` of one shard, checked;
    raises `DataError` when it is gone, unreadable or damaged.
    """
    content, size = _content(manifest, shard, index, inside)
    try:
        members = parse_members(content, _key(shard, inside), size)
        if index.crc32 and checksum(members[LENGTHS], members[TOKENS]) != index.crc32[inside]:
            raise DamageError("its checksum is not the one that was written")
        block = parse_block(members, size)
        _check_content(block, manifest.vocab_size)
    except DamageError as error:
        path = manifest.path / shard.tar.name
        raise DataError(
            f"{path}: block {inside} is damaged: {error}. Nothing was trained on it. `electra-dist"
            f" data verify {path.parent}` finds all damage; {REPLACE}"
        ) from error
    return block


def block_checksum(manifest: Manifest, shard: ShardFacts, index: ShardIndex, inside: int) -> int:
    """The checksum of a block as it is in the file;
    raises `DataError` when it fails one of the other checks.
    """
    read_block(manifest, shard, index, inside)
    content, size = _content(manifest, shard, index, inside)
    members = parse_members(content, _key(shard, inside), size)
    return checksum(members[LENGTHS], members[TOKENS])


def _content(
    manifest: Manifest, shard: ShardFacts, index: ShardIndex, inside: int
) -> tuple[bytes, BlockSize]:
    """All bytes of a block, perhaps with some of the next one, and what must be in them."""
    size = BlockSize(index.tokens[inside], index.documents[inside], manifest.token_dtype)
    return _read(manifest.path / shard.tar.name, index.offsets[inside], size.most_bytes), size


def _key(shard: ShardFacts, inside: int) -> str:
    return block_name(shard.tar.name.removesuffix(".tar"), inside)


def _read(path: Path, offset: int, count: int) -> bytes:
    """At most `count` bytes from `offset`; fewer at the end of the file."""
    try:
        with open_regular(path) as file:
            file.seek(offset)
            return file.read(count)
    except FileNotFoundError as error:
        raise DataError(f"{path}: {GONE}") from error
    except NotRegularError as error:
        raise DataError(f"{path}: {NOT_REGULAR}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}; {UNREADABLE}") from error


def _check_content(block: Block, vocab_size: int) -> None:
    """What the counts do not show: shards without checksums have no other proof."""
    tokens = block.tokens
    lengths = block.lengths
    if int(lengths.sum(dtype=np.int64)) != len(tokens) or not lengths.all():
        raise DamageError("its document lengths do not add up to its tokens")
    if int(tokens.max()) >= vocab_size:
        raise DamageError(f"token id {int(tokens.max())} is outside the vocabulary of {vocab_size}")


def read_index(manifest: Manifest, shard: ShardFacts) -> ShardIndex:
    """The index of one shard; raises `DataError` when it is gone,
    damaged or contradicts the manifest.
    """
    path = manifest.path / shard.index.name
    try:
        content = read_bounded(path, shard.index.bytes)
    except FileNotFoundError as error:
        raise DataError(f"{path}: {GONE}") from error
    except NotRegularError as error:
        raise DataError(f"{path}: {NOT_REGULAR}") from error
    except TooLargeError as error:
        raise DataError(f"{path}: is larger than the manifest says; {REPLACE}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}; {UNREADABLE}") from error
    if hashlib.sha256(content).hexdigest() != shard.index.sha256:
        raise DataError(f"{path}: {CHANGED}")
    try:
        index = _ADAPTER.validate_python(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read as a shard's index: {error}; build the shards again"
        ) from error
    if not _agrees(
        index, shard, manifest.facts.block_tokens, manifest.facts.block_checksums is not None
    ):
        raise DataError(f"{path}: does not agree with the manifest; {REPLACE}")
    return index


def _agrees(index: ShardIndex, shard: ShardFacts, block_tokens: int, checksums: bool) -> bool:
    return (
        {len(index.offsets), len(index.tokens), len(index.documents)} == {shard.blocks}
        and len(index.crc32) == (shard.blocks if checksums else 0)
        and sum(index.tokens) == shard.tokens
        and sum(index.documents) == shard.documents
        and all(
            1 <= d <= n <= block_tokens for d, n in zip(index.documents, index.tokens, strict=True)
        )
        and index.offsets[0] >= 0
        and all(a < b for a, b in pairwise((*index.offsets, shard.tar.bytes)))
    )
