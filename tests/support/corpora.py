"""Corpora in memory, where every token is another id: so each can be followed through any order.

`readable` lets the data pipeline read them in place of shards on a disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.data.shards.blocks import Block
from electra_dist.data.sources import RunData, Source

FIRST_ID = SPECIAL_TOKENS.mask + 1


class MemoryShards:
    """Stands in for a `Manifest`: blocks of documents of these lengths, ids from `first_id` on."""

    def __init__(self, blocks: Sequence[Sequence[int]], first_id: int = FIRST_ID) -> None:
        self.path = Path(f"memory-{first_id}")
        self.fingerprint = f"{first_id}-{blocks}"
        self.blocks: list[Block] = []
        for lengths in blocks:
            total = sum(lengths)
            ids = np.arange(first_id, first_id + total, dtype=np.uint32)
            self.blocks.append(Block(ids, np.array(lengths, np.uint32)))
            first_id += total
        self.end = first_id
        documents = sum(len(lengths) for lengths in blocks)
        tokens = sum(sum(lengths) for lengths in blocks)
        self.facts: Any = SimpleNamespace(
            train=SimpleNamespace(blocks=len(blocks), documents=documents, tokens=tokens),
            special_tokens=SPECIAL_TOKENS,
        )

    def split(self, name: str) -> Any:
        return getattr(self.facts, name)

    @property
    def ids(self) -> np.ndarray:
        """All tokens."""
        return np.concatenate([block.tokens for block in self.blocks])


class MemoryReader:
    """Stands in for a `BlockReader`."""

    def __init__(self, shards: MemoryShards, split: str, tell: object = None) -> None:
        self._blocks = shards.blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def read(self, number: int) -> Block:
        return self._blocks[number]

    def expect(self, blocks: Iterable[int]) -> None:
        """All blocks are in memory."""


@contextmanager
def readable() -> Iterator[None]:
    """Inside, rows are made of `MemoryShards`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("electra_dist.data.steps.BlockReader", MemoryReader)
        yield


def mixed(corpora: Sequence[Sequence[Sequence[int]]], shares: Sequence[int]) -> RunData:
    """Some corpora with these shares; no id is in two of them."""
    sources = []
    first_id = FIRST_ID
    for number, (blocks, share) in enumerate(zip(corpora, shares, strict=True)):
        shards: Any = MemoryShards(blocks, first_id)
        first_id = shards.end
        sources.append(Source(f"source-{number}", shards, share))
    return RunData(tuple(sources))
