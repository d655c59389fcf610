"""Checksums of blocks for shards that were made without them: `data checksums`.

Each shard is held against its SHA-256 first, so that no damage is sealed in. The new indexes get
names of their own, and one rename of the manifest makes them count: who trains on the shards
meanwhile goes on with the old indexes, and an interrupted command leaves everything as it was.
Neither the shards nor the fingerprint change.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data_tools.write import file_facts
from electra_dist.console import Progress, silent
from electra_dist.data.shards.files import file_problem
from electra_dist.data.shards.manifest import (
    SPLITS,
    TRAIN,
    VALIDATION,
    Manifest,
    ShardFacts,
    SplitFacts,
    write_manifest,
)
from electra_dist.data.shards.reading import block_checksum, read_index
from electra_dist.errors import DataError
from electra_dist.files.writing import write_atomically, writing

_SUFFIX = ".index.json"
_NEW_SUFFIX = ".index-crc32.json"


@dataclass(frozen=True)
class ChecksumStats:
    """What `add_checksums` did; no blocks where the shards had checksums already."""

    path: str
    blocks: int
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def add_checksums(path: Path, workers: int = 1, progress: Progress = silent) -> ChecksumStats:
    """Add a checksum of each block to the shards in `path`; does nothing where they are there.

    Raises `DataError` when a shard is gone or damaged, `StorageError` where nothing can be written.
    """
    manifest = Manifest.load(path)
    if manifest.facts.block_checksums:
        return ChecksumStats(str(path), 0, manifest.fingerprint)
    shards = [shard for name in SPLITS for shard in manifest.split(name).shards]
    renewed = []
    with writing(path, "the checksums"), ThreadPoolExecutor(workers) as pool:
        for shard in pool.map(partial(_with_checksums, manifest), shards):
            renewed.append(shard)
            progress("checksums", len(renewed), len(shards))
        count = len(manifest.facts.train.shards)
        facts = replace(
            manifest.facts,
            train=SplitFacts.of(tuple(renewed[:count])),
            validation=SplitFacts.of(tuple(renewed[count:])),
            block_checksums="crc32",
        )
        write_manifest(path, facts)
    blocks = sum(manifest.split(name).blocks for name in (TRAIN, VALIDATION))
    return ChecksumStats(str(path), blocks, Manifest.load(path).fingerprint)


def superseded(manifest: Manifest) -> Iterator[str]:
    """Names of the indexes that `add_checksums` left beside the new ones."""
    for name in SPLITS:
        for shard in manifest.split(name).shards:
            if shard.index.name.endswith(_NEW_SUFFIX):
                yield shard.index.name.removesuffix(_NEW_SUFFIX) + _SUFFIX


def _with_checksums(manifest: Manifest, shard: ShardFacts) -> ShardFacts:
    problem = file_problem(manifest.path, shard.tar, "checksums")
    if problem:
        raise DataError(f"{manifest.path / shard.tar.name}: {problem}")
    index = read_index(manifest, shard)
    crc32 = tuple(block_checksum(manifest, shard, index, block) for block in range(shard.blocks))
    name = shard.index.name.removesuffix(_SUFFIX) + _NEW_SUFFIX
    write_atomically(manifest.path / name, replace(index, crc32=crc32).to_json())
    return replace(shard, index=file_facts(manifest.path, name))
