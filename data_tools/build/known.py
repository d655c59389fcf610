"""Which documents some shards have already: named by a hash of their ids, as sorted runs on disk.

Shards hold ids, not texts; so a document is known by the ids of each piece and each block that it
was cut into. A run is a spill without ids: its keys are these names, and looking one up reads a few
pages of its index, whatever the size of the corpus.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.build.records import Encoded, write_encoded
from data_tools.disk import on_disk
from data_tools.spill import RECORD, Spill, SpillWriter
from electra_dist.data.shards.blocks import Block, DamageError
from electra_dist.data.shards.manifest import TRAIN, VALIDATION, Manifest, SplitName
from electra_dist.data.shards.reading import damage, open_index, read_block
from electra_dist.errors import DataError

_NO_IDS = np.zeros(0, dtype=np.uint32)


def contents_of(ids: npt.NDArray[Any], block_tokens: int) -> Iterator[bytes]:
    """The names of what a document or piece becomes in blocks of `block_tokens`."""
    for start in range(0, len(ids), block_tokens):
        content = ids[start : start + block_tokens].astype("<u4", copy=False)
        yield hashlib.blake2b(content.tobytes(), digest_size=16, person=b"content").digest()


class KnownDocuments:
    """The names in some runs that do not overlap."""

    def __init__(self, runs: Sequence[Spill]) -> None:
        self._runs = [
            (run.keys, np.memmap(run.index_path, dtype=RECORD, mode="r"))
            for run in runs
            if run.documents
        ]

    def have(self, content: bytes) -> bool:
        """Whether `content` is the name of something that is there."""
        high = int.from_bytes(content[:8], "big")
        low = int.from_bytes(content[8:], "big")
        for keys, index in self._runs:
            if not keys.low <= high < keys.high:
                continue
            column = index["high"]
            at = bisect.bisect_left(range(len(column)), high, key=lambda i: int(column[i]))
            while at < len(index) and int(column[at]) == high:
                if int(index["low"][at]) == low:
                    return True
                at += 1
        return False


@dataclass(frozen=True)
class NameTask:
    """Everything a worker needs to name the documents of one shard."""

    shards: Path
    split: SplitName
    shard: int
    number: int
    folder: Path


def name_documents(task: NameTask) -> Encoded:
    """Write the sorted names of one shard's documents, and the record."""
    with on_disk(task.folder):
        task.folder.mkdir(parents=True, exist_ok=True)
        writer = SpillWriter(task.folder, f"known-{task.number:07d}", np.dtype("<u4"))
        documents = 0
        for ids in _documents(task):
            documents += 1
            for content in contents_of(ids, max(1, len(ids))):
                writer.add(content, _NO_IDS)
        named = Encoded(
            spills={TRAIN: writer.close(), VALIDATION: []},
            lowest=[],
            documents=documents,
            too_short=0,
            without_tokens=0,
            cut=0,
            already_there=0,
        )
        write_encoded(task.folder, task.number, named)
    return named


def _documents(task: NameTask) -> Iterator[npt.NDArray[Any]]:
    manifest = Manifest.load(task.shards)
    facts = manifest.split(task.split).shards[task.shard]
    entries = open_index(manifest, task.split).entries(task.shard)
    for number, entry in enumerate(entries):
        try:
            block = read_block(manifest, facts, number, entry)
        except DamageError as error:
            place = str(task.shards / facts.tar.name)
            raise DataError(damage(place, number, error)) from error
        yield from _of_block(block)


def _of_block(block: Block) -> Iterator[npt.NDArray[Any]]:
    end = 0
    for length in block.lengths.tolist():
        end += length
        yield block.tokens[end - length : end]
