"""Rows with keys: one block packed, its rows in a drawn order, masked into micro-batches on demand.

Comes in: a block of a split, by number. Goes out: `KeyedRows`, and `MicroBatch`es made of them.
What a row holds, and how it is masked, depends on (format, data, seed, split, source, epoch, block,
row) only.

Letters: B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from electra_dist.batch import MicroBatch, SpecialTokens, UInt64
from electra_dist.data.masking import absorb, hash_words, mask_rows
from electra_dist.data.packing import (
    Int64,
    PackedRows,
    Pieces,
    concatenate,
    cumulative_lengths,
    documents_and_positions,
    pack_with_pieces,
)
from electra_dist.data.shards.blocks import Block
from electra_dist.data.shards.manifest import TRAIN, VALIDATION, SplitName
from electra_dist.data.step_plan import RowFormat

# purposes of the keys drawn here
_ROW_ORDER = 0x6F72646572
_ROW_KEY = 0x6B6579
#: Tokens that are masked at once: many, and still in the cache.
_MASKED_TOKENS = 2**16
_SPLIT_NUMBER: dict[SplitName, int] = {TRAIN: 0, VALIDATION: 1}


@dataclass(frozen=True)
class KeyedRows:
    """Packed rows, each with the key (B,) that its masks are drawn from."""

    packed: PackedRows
    keys: UInt64

    def take(self, rows: slice | Int64) -> KeyedRows:
        """The rows of a slice, or of an array of row numbers."""
        return KeyedRows(self.packed.take(rows), self.keys[rows])


class Blocks(Protocol):
    """Blocks of one split, 0 to `len` - 1: a `BlockReader`, or what gives them from elsewhere."""

    def __len__(self) -> int: ...

    def read(self, block: int, /) -> Block:
        """Block number `block`."""

    def expect(self, blocks: Iterable[int], /) -> None:
        """Begin to read `blocks`, which will be wanted in this order."""


class RowSource:
    """Blocks of one split as packed rows in their drawn order, with their keys.

    `source` is the number of the shards among those of the run.
    """

    def __init__(
        self,
        row_format: RowFormat,
        blocks: Blocks,
        split: SplitName,
        specials: SpecialTokens,
        source: int = 0,
    ) -> None:
        self._blocks = blocks
        self._specials = specials
        self._documents = row_format.max_documents_per_row
        self.row_length = row_format.row_length
        self._domain: tuple[int, ...] = (row_format.seed, _SPLIT_NUMBER[split])
        if source:
            self._domain = (*self._domain, source)

    def __len__(self) -> int:
        return len(self._blocks)

    def expect(self, blocks: Iterable[int]) -> None:
        """Begin to read `blocks`, whose rows will be wanted in this order."""
        self._blocks.expect(blocks)

    def rows(self, epoch: int, block: int) -> KeyedRows:
        """All rows of one block as `epoch` sees them."""
        packed, pieces = pack_with_pieces(
            self._blocks.read(block), self.row_length, self._documents, self._specials
        )
        number = np.arange(len(packed), dtype=np.uint64)
        draws, keys = (
            absorb(
                np.full(len(packed), hash_words(purpose, *self._domain, epoch, block), np.uint64),
                number,
            )
            for purpose in (_ROW_ORDER, _ROW_KEY)
        )
        return KeyedRows(packed.take(np.argsort(spread(pieces, draws), kind="stable")), keys)


def spread(pieces: Pieces, draws: UInt64) -> npt.NDArray[np.float64]:
    """(B,) the time between 0 and 1 at which each row of a block comes.

    The m rows that hold a document are evenly spaced, 1 / m apart, as on a clock: so neighbours in
    the text are as far apart as can be. The rows of last pieces, which may hold those of several
    documents, are evenly spaced in a drawn order (`draws` (B,) are random numbers). From there the
    other rows of a document, in a drawn order, have their times.
    """
    last = np.append(pieces.documents[1:] != pieces.documents[:-1], True)
    ends = np.unique(pieces.rows[last])
    times = np.zeros(len(draws), np.float64)
    times[ends[np.argsort(draws[ends])]] = (np.arange(len(ends)) + 0.5) / len(ends)
    order = np.lexsort((draws[pieces.rows], pieces.documents))
    order = order[~last[order]]
    inner = Pieces(pieces.documents[order], pieces.rows[order])
    numbers, first, counts = np.unique(inner.documents, return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, counts) + 1
    anchors = times[pieces.rows[last]][np.searchsorted(pieces.documents[last], numbers)]
    times[inner.rows] = (np.repeat(anchors, counts) + place / np.repeat(counts + 1, counts)) % 1
    return times


def micro_batch(rows: KeyedRows, row_format: RowFormat, specials: SpecialTokens) -> MicroBatch:
    """`rows` as the model reads them, masked."""
    tokens = rows.packed.tokens.astype(np.int32)
    documents, positions = documents_and_positions(rows.packed)
    masks = mask_rows(
        tokens, rows.keys, row_format.mask_fraction, row_format.mask_token_fraction, specials
    )
    return MicroBatch(
        tokens=tokens,
        inputs=masks.inputs,
        positions=positions,
        documents=documents,
        cu_seqlens=cumulative_lengths(rows.packed),
        masked_positions=masks.positions,
        masked_targets=masks.targets,
        masked_weights=masks.weights,
        masked_keys=masks.keys,
    )


def join(parts: list[KeyedRows]) -> KeyedRows:
    """The rows of all parts, one after the other."""
    return KeyedRows(
        concatenate([part.packed for part in parts]), np.concatenate([part.keys for part in parts])
    )


def empty_rows(like: KeyedRows, count: int, specials: SpecialTokens) -> KeyedRows:
    """`count` rows of nothing but padding."""
    length = like.packed.tokens.shape[1]
    documents = like.packed.ends.shape[1]
    rows = PackedRows(
        np.full((count, length), specials.pad, like.packed.tokens.dtype),
        np.zeros((count, documents), np.int32),
        np.zeros(count, np.int32),
    )
    return KeyedRows(rows, np.zeros(count, np.uint64))


def filled(rows: KeyedRows, count: int, specials: SpecialTokens) -> KeyedRows:
    """`rows`, and empty ones after them, `count` in all."""
    if len(rows.keys) == count:
        return rows
    return join([rows, empty_rows(rows, count - len(rows.keys), specials)])


def micro_batches(
    rows: KeyedRows, row_format: RowFormat, specials: SpecialTokens
) -> list[MicroBatch]:
    """`rows` in order, `micro_rows` at a time; masked all at once, because a call has its price."""
    size = row_format.micro_rows
    masked = _MASKED_TOKENS // row_format.row_length
    masked = max(1, masked // size) * size
    batches = []
    for first in range(0, len(rows.keys), masked):
        part = rows.take(slice(first, first + masked))
        whole = micro_batch(part, row_format, specials)
        batches += [
            _cut(whole, part, slice(start, start + size))
            for start in range(0, len(part.keys), size)
        ]
    return batches


def _cut(whole: MicroBatch, rows: KeyedRows, part: slice) -> MicroBatch:
    """Some rows of `whole`, which was made of `rows`:
    views, and cumulative lengths of their own.
    """
    arrays = {
        field.name: getattr(whole, field.name)[part]
        for field in fields(whole)
        if field.name != "cu_seqlens"
    }
    return MicroBatch(**arrays, cu_seqlens=cumulative_lengths(rows.packed.take(part)))
