"""The documents of one part of the input, encoded and spilled to disk by split.

The first half of `data_tools.build`, which runs it in worker processes. Comes in: an `EncodeTask`.
Goes out: sorted spills of ids on disk, and an `Encoded` with the counts. A document's split and its
place in the shuffle are hashes of its text.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data_tools.clean import digest, normalise
from data_tools.sources import Part, read_documents
from data_tools.spill import Spill, SpillWriter
from data_tools.tokenizer import ShardTokenizer, Shares, load_tokenizer
from electra_dist.data.shards.manifest import SPLITS, TRAIN, VALIDATION, SplitName

BATCH_DOCUMENTS = 256


@dataclass(frozen=True)
class EncodeTask:
    """Everything a worker needs to encode one part.

    number   of the part; it names the spills
    folder   where the spills go

    The other fields are those of `BuildOptions`.
    """

    part: Part
    number: int
    tokenizer_dir: Path
    folder: Path
    validation: float
    seed: int
    min_characters: int
    deduplicate: bool


@dataclass(frozen=True)
class Encoded:
    """The spills of one part, and how many documents were read and left out; `shares` has
    how much of them was spelt in bytes or is unknown.
    """

    spills: dict[SplitName, list[Spill]]
    documents: int
    too_short: int
    without_tokens: int
    shares: Shares


def encode(task: EncodeTask) -> Encoded:
    """Encode the documents of one part and spill them by split."""
    tokenizer = _worker_tokenizer(task.tokenizer_dir)
    dtype = np.dtype(f"<u{token_bytes(tokenizer.vocab_size)}")
    writers = {
        name: SpillWriter(task.folder, f"{name}-{task.number:06d}", dtype) for name in SPLITS
    }
    documents = 0
    too_short = 0
    without_tokens = 0
    shares = Shares()
    for texts in _batches(read_documents(task.part)):
        shortest = max(1, task.min_characters)
        kept = [text for text in map(normalise, texts) if len(text.strip()) >= shortest]
        encoded = tokenizer.encode_batch(kept)
        shares += tokenizer.shares_of(encoded)
        for text, ids in zip(kept, encoded, strict=True):
            if not len(ids):
                without_tokens += 1
                continue
            name = digest(text)
            if _fraction(name) < task.validation:
                split = VALIDATION
            else:
                split = TRAIN
            if task.deduplicate:
                position = b""
            else:
                position = b"%d/%d" % (task.number, documents)
            writers[split].add(_order_key(name, task.seed, position), ids)
            documents += 1
        too_short += len(texts) - len(kept)
    total = documents + too_short + without_tokens
    return Encoded(
        {name: writer.close() for name, writer in writers.items()},
        total,
        too_short,
        without_tokens,
        shares,
    )


def token_bytes(vocab_size: int) -> Literal[2, 4]:
    """Bytes of one id on disk."""
    if vocab_size <= 2**16:
        return 2
    return 4


@functools.cache
def _worker_tokenizer(path: Path) -> ShardTokenizer:
    return load_tokenizer(path)


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for document in documents:
        batch.append(document)
        if len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch = []
    if batch:
        yield batch


def _fraction(name: bytes) -> float:
    """The document's place in [0, 1) that decides its split."""
    return (
        int.from_bytes(hashlib.blake2b(name, digest_size=6, person=b"split").digest(), "little")
        / 2**48
    )


def _order_key(name: bytes, seed: int, position: bytes) -> bytes:
    """The document's place in the shuffle: 16 bytes."""
    key = seed.to_bytes(16, "little", signed=True)
    return hashlib.blake2b(name + position, digest_size=16, key=key, person=b"order").digest()
