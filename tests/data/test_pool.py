"""The open blocks: opened a few at a time, kept in little more memory than one of each lane, and
the same rows however early they are opened.
"""

from __future__ import annotations

import numpy as np
import pytest

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.data import pool
from electra_dist.data.lanes import LaneLayout
from electra_dist.data.pool import RowPool
from electra_dist.data.rows import RowSource
from electra_dist.data.shards.blocks import Block
from electra_dist.data.shards.manifest import TRAIN
from electra_dist.data.step_plan import RowFormat
from electra_dist.errors import DataError
from tests.support.corpora import MemoryReader, MemoryShards, mixed

ROWS = RowFormat(
    seed=3,
    micro_rows=1,
    row_length=16,
    max_documents_per_row=4,
    mask_fraction=0.15,
    mask_token_fraction=0.85,
)
STREAMS = 8


class CountingReader(MemoryReader):
    """Notes the blocks that are read."""

    opened = 0

    def read(self, number: int) -> Block:
        self.opened += 1
        return super().read(number)


def opened(position: list[int] | None = None) -> tuple[RowPool, CountingReader]:
    """8 streams of 4 lanes, over 96 blocks of about 60 rows: one long document and short ones."""
    data = mixed([[[500, *[11] * 20]] * 96], [10**9])
    layout = LaneLayout.of(data, STREAMS, 4)
    assert layout.counts == (4,)
    shards = data.sources[0].manifest
    assert isinstance(shards, MemoryShards)
    reader = CountingReader(shards, TRAIN)
    start = np.zeros((STREAMS, layout.width), np.int64)
    if position is not None:
        start[:] = position
    source = RowSource(ROWS, reader, TRAIN, SPECIAL_TOKENS)
    return RowPool(layout, range(STREAMS), start, [source], ROWS.seed), reader


def test_what_is_opened_ahead_changes_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for haste in (0.0, 1.25, 100.0):
        monkeypatch.setattr(pool, "HASTE", haste)
        rows, _ = opened()
        found.append([rows.take(2).packed.tokens.tobytes() for _ in range(300)])
    assert found[0] == found[1] == found[2]


def test_no_step_opens_many_blocks_although_all_end_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = {}
    for haste in (0.0, 1.25):
        monkeypatch.setattr(pool, "HASTE", haste)
        rows, reader = opened()
        counts = []
        for _ in range(400):
            before = reader.opened
            rows.take(2)
            counts.append(reader.opened - before)
        most[haste] = max(counts[4:])
        assert sum(counts) >= 400 * 2 * STREAMS / 65  # rows of a block
    assert most[0.0] >= 8  # all streams at once
    assert most[1.25] <= 1  # 16 rows a step, blocks of about 60 rows


def test_memory_is_little_more_than_a_block_of_each_lane() -> None:
    rows, reader = opened()
    for _ in range(400):
        rows.take(2)
    block = RowSource(ROWS, reader, TRAIN, SPECIAL_TOKENS).rows(0, 0)
    packed = block.packed
    size = sum(array.nbytes for array in (packed.tokens, packed.ends, packed.counts, block.keys))
    lanes = STREAMS * 4
    assert lanes * size < rows.bytes < 1.3 * lanes * size


def test_a_state_of_other_shards_is_refused() -> None:
    rows, _ = opened([0, 0, 0, 0, 0, 0, 99, 0, 0, 0])
    with pytest.raises(DataError, match=r"row 99 of a block with 5\d rows; the shards are not"):
        rows.take(1)
