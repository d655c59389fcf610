"""Where each block of one shard is: `NAME.index.json`, made with the shard.

While shards are built, each has such a file; `write_manifest` puts all of them into the tables of
the split. In version 1 of the format they stay, and a reader opens one for each shard.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import pydantic

from electra_dist.data.shards.facts import ShardFacts
from electra_dist.data.shards.files import CHANGED, REPLACE, explained
from electra_dist.errors import DataError
from electra_dist.files.reading import read_bounded

INDEX_SUFFIX = ".index.json"
#: Of the indexes that an earlier version wrote when it added checksums to finished shards.
CHECKSUMS_SUFFIX = ".index-crc32.json"


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


def read_index(folder: Path, shard: ShardFacts, block_tokens: int, checksums: bool) -> ShardIndex:
    """The index of one shard in `folder`; raises `DataError` when it is gone, damaged or
    contradicts the manifest, which states `block_tokens` and whether there are `checksums`.
    """
    if shard.index is None:
        raise ValueError(f"{shard.tar.name} has no index of its own")
    path = folder / shard.index.name
    with explained(path):
        content = read_bounded(path, shard.index.bytes)
    if hashlib.sha256(content).hexdigest() != shard.index.sha256:
        raise DataError(f"{path}: {CHANGED}")
    try:
        index = _ADAPTER.validate_python(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read as a shard's index: {error}; build the shards again"
        ) from error
    if not _agrees(index, shard, block_tokens, checksums):
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
