"""Whether the bytes of a block are what was written: every gate that they pass.

Comes in: bytes that start where a block does, from a file or a store, and the entry that says what
they must hold. Goes out: the block, or a `DamageError`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
from electra_dist.data.shards.facts import ShardFacts
from electra_dist.data.shards.files import REPLACE
from electra_dist.data.shards.manifest import Manifest


class Entry(NamedTuple):
    """Where a block starts in its tar, what it must hold, and the CRC-32 of it, where there is
    one.
    """

    offset: int
    tokens: int
    documents: int
    crc32: int | None


def block_name(shard: str, block: int) -> str:
    """Name of the sample that holds block `block` of the shard called `shard`."""
    return f"{shard}-{block:06d}"


def damage(place: str, inside: int, error: DamageError) -> str:
    """What is said of a damaged block of the shard at `place`."""
    folder = place.rpartition("/")[0]
    return (
        f"{place}: block {inside} is damaged: {error}. Nothing was trained on it. `electra-dist"
        f" data verify {folder}` finds all damage; {REPLACE}"
    )


def block_size(manifest: Manifest, shard: ShardFacts, entry: Entry) -> BlockSize:
    """What a block must be in memory; raises `DamageError` for an entry that cannot be true."""
    fits = 1 <= entry.documents <= entry.tokens <= manifest.facts.block_tokens
    if not fits or entry.offset >= shard.tar.bytes:
        raise DamageError(
            f"the table has {entry.tokens} tokens in {entry.documents} documents at byte"
            f" {entry.offset} for it"
        )
    return BlockSize(entry.tokens, entry.documents, manifest.token_dtype)


def checked_block(
    content: bytes, shard: ShardFacts, inside: int, entry: Entry, manifest: Manifest
) -> Block:
    """The block that `content` starts with; raises `DamageError` when it fails a check."""
    size = block_size(manifest, shard, entry)
    members = _members(content, shard, inside, size)
    if entry.crc32 is not None and checksum(members[LENGTHS], members[TOKENS]) != entry.crc32:
        raise DamageError("its checksum is not the one that was written")
    block = parse_block(members, size)
    _check_content(block, manifest.vocab_size)
    return block


def block_checksum(
    content: bytes, shard: ShardFacts, inside: int, entry: Entry, manifest: Manifest
) -> int:
    """The checksum of the block that `content` starts with;
    raises `DamageError` when it fails one of the other checks.
    """
    checked_block(content, shard, inside, entry, manifest)
    members = _members(content, shard, inside, block_size(manifest, shard, entry))
    return checksum(members[LENGTHS], members[TOKENS])


def _members(
    content: bytes, shard: ShardFacts, inside: int, size: BlockSize
) -> dict[str, memoryview]:
    return parse_members(content, block_name(shard.tar.name.removesuffix(".tar"), inside), size)


def _check_content(block: Block, vocab_size: int) -> None:
    """What the counts do not show: shards without checksums have no other proof."""
    tokens = block.tokens
    lengths = block.lengths
    if int(lengths.sum(dtype=np.int64)) != len(tokens) or not lengths.all():
        raise DamageError("its document lengths do not add up to its tokens")
    if int(tokens.max()) >= vocab_size:
        raise DamageError(f"token id {int(tokens.max())} is outside the vocabulary of {vocab_size}")
