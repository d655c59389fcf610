"""Shards of an earlier version in the format of today: `data upgrade`.

The tables take the place of the index files, and blocks without a checksum get one: their shards
are held against their SHA-256 first, so that no damage is sealed in. One rename of the manifest
makes the tables count: who trains on the shards meanwhile goes on with the old indexes, which stay,
and an interrupted command leaves everything as it was. Neither the shards nor the fingerprint
change.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data_tools.write import file_facts
from electra_dist.console import Progress, silent
from electra_dist.data.shards.blocks import DamageError
from electra_dist.data.shards.facts import SPLITS, VERSION
from electra_dist.data.shards.files import CHANGED, explained
from electra_dist.data.shards.indexes import CHECKSUMS_SUFFIX, read_index
from electra_dist.data.shards.manifest import Manifest, ShardFacts, SplitFacts, write_manifest
from electra_dist.data.shards.reading import Entry, block_checksum, damage
from electra_dist.data.shards.scanning import ShardScan
from electra_dist.errors import DataError
from electra_dist.files.writing import write_atomically, writing


@dataclass(frozen=True)
class UpgradeStats:
    """What `upgrade_shards` did; no blocks where the shards had this format already."""

    path: str
    blocks: int
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def upgrade_shards(path: Path, workers: int = 1, progress: Progress = silent) -> UpgradeStats:
    """Write the tables for the shards in `path`; does nothing where they are there.

    Raises `DataError` when a shard is gone or damaged, `StorageError` where nothing can be written.
    """
    if workers < 1:
        raise DataError(f"`workers` {workers}: expected at least 1")
    manifest = Manifest.load(path)
    if manifest.facts.version == VERSION:
        return UpgradeStats(str(path), 0, manifest.fingerprint)
    facts = manifest.facts
    with writing(path, "the tables"):
        if facts.block_checksums:
            write_manifest(path, facts, keep_indexes=True)
        else:
            _add_checksums(manifest, workers, progress)
    blocks = sum(manifest.split(name).blocks for name in SPLITS)
    return UpgradeStats(str(path), blocks, Manifest.load(path).fingerprint)


def _add_checksums(manifest: Manifest, workers: int, progress: Progress) -> None:
    """Compute the checksums of all blocks, then write the manifest with them."""
    shards = [shard for name in SPLITS for shard in manifest.split(name).shards]
    renewed: list[ShardFacts] = []
    with _removed(manifest.path, shards), ThreadPoolExecutor(workers) as pool:
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
        write_manifest(manifest.path, facts)


@contextmanager
def _removed(path: Path, shards: list[ShardFacts]) -> Iterator[None]:
    """A block that makes indexes with checksums; none of them is left behind."""
    try:
        yield
    finally:
        for shard in shards:
            (path / _new_index(shard)).unlink(missing_ok=True)


def _new_index(shard: ShardFacts) -> str:
    return shard.tar.name.removesuffix(".tar") + CHECKSUMS_SUFFIX


def _with_checksums(manifest: Manifest, shard: ShardFacts) -> ShardFacts:
    path = manifest.path / shard.tar.name
    index = read_index(manifest.path, shard, manifest.facts.block_tokens, checksums=False)
    counts = zip(index.offsets, index.tokens, index.documents, strict=True)
    entries = [Entry(*numbers, None) for numbers in counts]
    crc32 = []
    bad: str | None = None
    with explained(path), ShardScan(manifest, shard, entries) as scan:
        for inside, content in scan:
            try:
                found = block_checksum(content, shard, inside, entries[inside], manifest)
                crc32.append(found)
            except DamageError as error:
                bad = bad or damage(str(path), inside, error)
        if scan.sha256() != shard.tar.sha256:
            raise DataError(f"{path}: {CHANGED}")
    if bad:
        raise DataError(bad)
    name = _new_index(shard)
    write_atomically(manifest.path / name, replace(index, crc32=tuple(crc32)).to_json())
    return replace(shard, index=file_facts(manifest.path, name))
