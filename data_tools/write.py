"""One shard from one range of keys: gather, cut into blocks, write tar and index.

The second half of `data_tools.build`, which runs it in worker processes. The same documents give
the same bytes: time stamps, owners and modes in the tar are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.spill import KeyRange, Spill, gather
from electra_dist.data.shards.blocks import LENGTHS, TOKENS, array_bytes, checksum
from electra_dist.data.shards.files import FileFacts, sha256_of_file
from electra_dist.data.shards.manifest import ShardFacts, SplitName
from electra_dist.data.shards.reading import ShardIndex, block_name

_Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class WriteTask:
    """Everything a worker needs to write one shard."""

    folder: Path
    name: str
    split: SplitName
    spills: tuple[Spill, ...]
    keys: KeyRange
    token_bytes: int
    vocab_size: int
    block_tokens: int
    drop_equal_keys: bool


@dataclass(frozen=True)
class WrittenShard:
    """A shard that was written, or `facts` None for a range of keys without documents."""

    split: SplitName
    facts: ShardFacts | None
    duplicates: int
    token_counts: npt.NDArray[np.int64]


def write_shard(task: WriteTask) -> WrittenShard:
    """Write `NAME.tar` and `NAME.index.json`."""
    dtype = np.dtype(f"<u{task.token_bytes}")
    documents, duplicates = gather(task.spills, task.keys, dtype, task.drop_equal_keys)
    counts = np.zeros(task.vocab_size, dtype=np.int64)
    if not documents:
        return WrittenShard(task.split, None, duplicates, counts)
    tar = task.folder / f"{task.name}.tar"
    index = _write_tar(task, tar, documents, counts)
    index_path = task.folder / f"{task.name}.index.json"
    index_path.write_text(index.to_json(), encoding="utf-8")
    facts = ShardFacts(
        tar=file_facts(task.folder, tar.name),
        index=file_facts(task.folder, index_path.name),
        blocks=len(index.offsets),
        documents=sum(index.documents),
        tokens=sum(index.tokens),
    )
    return WrittenShard(task.split, facts, duplicates, counts)


def file_facts(folder: Path, name: str) -> FileFacts:
    """Size and SHA-256 of `folder/name`."""
    path = folder / name
    return FileFacts(name, path.stat().st_size, sha256_of_file(path))


def _write_tar(
    task: WriteTask, path: Path, documents: list[_Ids], counts: npt.NDArray[np.int64]
) -> ShardIndex:
    # Imported here because webdataset imports torch wherever it is installed,
    # and this package must load without.
    from webdataset.writer import TarWriter

    offsets = []
    tokens = []
    documents_of = []
    checksums = []
    # A whole mtime: a fractional one costs a PAX header of 1,024 bytes a file.
    with (
        path.open("wb") as file,
        TarWriter(file, encoder=False, user="", group="", mode=0o644, mtime=0) as writer,
    ):
        for number, block in enumerate(blocks(documents, task.block_tokens)):
            flat = np.concatenate(block)
            members = {
                LENGTHS: array_bytes(np.array([len(ids) for ids in block], dtype="<u4")),
                TOKENS: array_bytes(flat),
            }
            offsets.append(int(writer.tarstream.offset))
            tokens.append(len(flat))
            documents_of.append(len(block))
            checksums.append(checksum(members[LENGTHS], members[TOKENS]))
            writer.write({"__key__": block_name(task.name, number), **members})
            counts += np.bincount(flat, minlength=len(counts))
    return ShardIndex(tuple(offsets), tuple(tokens), tuple(documents_of), tuple(checksums))


def blocks(documents: list[_Ids], block_tokens: int) -> Iterator[list[_Ids]]:
    """Consecutive documents of at most `block_tokens` together;
    longer documents are cut into equal-sized blocks.
    """
    block: list[_Ids] = []
    size = 0
    for document in documents:
        for start in range(0, len(document), block_tokens):
            piece = document[start : start + block_tokens]
            if block and size + len(piece) > block_tokens:
                yield block
                block = []
                size = 0
            block.append(piece)
            size += len(piece)
    if block:
        yield block
