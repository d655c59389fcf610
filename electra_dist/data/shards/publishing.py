"""Writing a manifest: the tables first, `manifest.json` last.

Comes in: the facts of all shards in a folder, and where their blocks are: in an index file for each
shard, or in the tables of the manifest that the folder has already. Goes out: a folder that
`Manifest.load` opens. Until the last rename the old manifest and its tables count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.data.shards.facts import (
    SPLITS,
    VERSION,
    ManifestFile,
    ShardFacts,
    SplitName,
    SplitTables,
)
from electra_dist.data.shards.indexes import ShardIndex, read_index
from electra_dist.data.shards.parsing import MANIFEST_FILE, facts_of, read_content
from electra_dist.data.shards.tables import (
    BLOCK,
    SHARD,
    TAR_STEP,
    BlockTable,
    Records,
    shard_record,
    write_table,
)
from electra_dist.errors import DataError
from electra_dist.files.writing import write_atomically


def write_manifest(folder: Path, facts: ManifestFile, *, keep_indexes: bool = False) -> None:
    """Write the tables and `manifest.json` into `folder`: the last files of a folder of shards.

    A shard with an `index` is read from it, and these files are removed when the manifest is
    there, unless `keep_indexes`. A shard without one must be in the manifest that `folder` has.
    Raises `DataError` where the blocks of a shard are not known, `OSError` where nothing can be
    written.
    """
    old = _Old(folder)
    tables: dict[SplitName, SplitTables] = {}
    for name in SPLITS:
        tables[name] = _write_tables(folder, facts, name, old)
    write_manifest_file(folder, facts, tables)
    if keep_indexes:
        return
    for name in SPLITS:
        for shard in facts.split(name).shards:
            if shard.index is not None:
                (folder / shard.index.name).unlink(missing_ok=True)


def write_manifest_file(
    folder: Path, facts: ManifestFile, tables: dict[SplitName, SplitTables]
) -> None:
    """Write `manifest.json` alone, for tables that are there; raises `OSError`."""
    written = replace(facts, version=VERSION, tables=tables)
    write_atomically(folder / MANIFEST_FILE, _manifest_json(written))


def _write_tables(folder: Path, facts: ManifestFile, name: SplitName, old: _Old) -> SplitTables:
    split = facts.split(name)
    records: list[Records] = []

    def entries() -> Iterator[Records]:
        for shard in split.shards:
            found = _entries(folder, facts, name, shard, old)
            records.append(shard_record(name, shard, found))
            yield found

    blocks = write_table(folder, f"{name}.blocks", BLOCK, split.blocks, entries())
    shards = write_table(folder, f"{name}.shards", SHARD, len(split.shards), iter(records))
    return SplitTables(shards, blocks)


def _entries(
    folder: Path, facts: ManifestFile, name: SplitName, shard: ShardFacts, old: _Old
) -> Records:
    """The entries of a shard's blocks."""
    if shard.index is None:
        return old.entries(name, shard)
    checksums = facts.block_checksums is not None
    index = read_index(folder, shard, facts.block_tokens, checksums)
    return entries_of(index, shard)


def entries_of(index: ShardIndex, shard: ShardFacts) -> Records:
    """What a shard's index holds, as entries of the table of blocks."""
    records = np.zeros(len(index.offsets), BLOCK)
    offsets = np.array(index.offsets, np.int64)
    if (offsets % TAR_STEP).any() or int(offsets.max()) // TAR_STEP >= 2**32:
        raise DataError(
            f"{shard.tar.name}: a block does not start at a multiple of {TAR_STEP} bytes below 2"
            " TB; build the shards again"
        )
    records["start"] = offsets // TAR_STEP
    records["tokens"] = index.tokens
    records["documents"] = index.documents
    if index.crc32:
        records["crc32"] = index.crc32
    return records


class _Old:
    """The manifest that a folder has already, opened when a shard of it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._facts: ManifestFile | None = None
        self._tables: dict[SplitName, BlockTable] = {}
        self._places: dict[SplitName, dict[str, tuple[int, ShardFacts]]] = {}

    def entries(self, name: SplitName, shard: ShardFacts) -> Records:
        """The entries of a shard that is in the old manifest, unchanged."""
        if name not in self._places:
            self._open(name)
        first, known = self._places[name].get(shard.tar.name, (0, None))
        if known != shard:
            raise DataError(
                f"{self._folder / shard.tar.name}: neither an index nor the manifest of the folder"
                " says where its blocks are; build the shards again"
            )
        return self._tables[name].read(first, shard.blocks)

    def _open(self, name: SplitName) -> None:
        if self._facts is None:
            self._facts = facts_of(
                path=self._folder,
                content=read_content(self._folder),
                have=lambda facts: None,
                file=str(self._folder / MANIFEST_FILE),
            )
        facts = self._facts
        places: dict[str, tuple[int, ShardFacts]] = {}
        self._places[name] = places
        if facts.tables is None:
            return
        self._tables[name] = BlockTable(
            self._folder, facts.tables[name].blocks, facts.split(name).blocks
        )
        first = 0
        for shard in facts.split(name).shards:
            places[shard.tar.name] = (first, shard)
            first += shard.blocks


def _manifest_json(facts: ManifestFile) -> str:
    """The text of `manifest.json`: indented, the token counts on one line."""
    content: dict[str, Any] = {}
    for field in fields(facts):
        if field.name in SPLITS:
            split = getattr(facts, field.name)
            content[field.name] = {
                "shards": len(split.shards),
                "blocks": split.blocks,
                "documents": split.documents,
                "tokens": split.tokens,
            }
        elif field.name != "token_counts":
            content[field.name] = _plain(getattr(facts, field.name))
    counts = json.dumps(facts.token_counts, separators=(",", ":"))
    text = json.dumps(content, indent=1)
    return f'{text[:-2]},\n "token_counts": {counts}\n}}\n'


def _plain(value: Any) -> Any:
    """A value of a manifest as JSON takes it."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value
