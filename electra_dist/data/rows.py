"""Rows with keys: one block packed, its rows in a drawn order, masked into micro-batches on demand.

Comes in: a block of a split, by number. Goes out: `KeyedRows`, and `MicroBatch`es made of them.
What a row holds, and how it is masked, depends on (format, data, seed, split, source, epoch, block,
row) only.

Letters: B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from electra_dist.batch import SPECIAL_TOKENS, MicroBatch, UInt64
from electra_dist.data.masking import absorb, hash_words, mask_rows, mix_array
from electra_dist.data.packing import (
    Int64,
    PackedRows,
    concatenate,
    cumulative_lengths,
    documents_and_positions,
    pack_with_leads,
)
from electra_dist.data.shards.manifest import TRAIN, VALIDATION, Manifest, SplitName
from electra_dist.data.shards.reading import BlockReader, sign_of_data
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


class RowSource:
    """Blocks of one split as packed rows in their drawn order, with their keys;
    `tell` hears which one is read.

    `source` is the number of the shards among those of the run.
    """

    def __init__(
        self,
        row_format: RowFormat,
        manifest: Manifest,
        split: SplitName,
        source: int = 0,
        tell: Callable[[str], None] = sign_of_data,
    ) -> None:
        self._reader = BlockReader(manifest, split, tell)
        self._tokens = manifest.split(split).tokens
        self._documents = row_format.max_documents_per_row
        self.row_length = row_format.row_length
        self._domain: tuple[int, ...] = (row_format.seed, _SPLIT_NUMBER[split])
        if source:
            self._domain = (*self._domain, source)

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def mean_tokens(self) -> float:
        """Tokens of a block."""
        return self._tokens / max(len(self), 1)

    def rows(self, epoch: int, block: int) -> KeyedRows:
        """All rows of one block as `epoch` sees them."""
        packed, leads = pack_with_leads(self._reader.read(block), self.row_length, self._documents)
        number = np.arange(len(packed), dtype=np.uint64)
        phases, keys = (
            absorb(
                np.full(len(packed), hash_words(purpose, *self._domain, epoch, block), np.uint64),
                number,
            )
            for purpose in (_ROW_ORDER, _ROW_KEY)
        )
        return KeyedRows(packed.take(spread(leads, phases)), keys)


def spread(leads: Int64, draws: UInt64) -> Int64:
    """(B,) an order of rows in which those of one document are as far apart as can be.

    `leads` (B,) is the document that begins each row, `draws` (B,) are random. The m rows of a
    document, in a drawn order, come at the times (q + u) / m for q = 0, 1, ..., where u is drawn
    once for the document, between 0 and 1. So a document of one row comes at any time, and any two
    rows of a long one are about B / m rows apart.
    """
    order = np.lexsort((draws, leads))
    _, first, counts = np.unique(leads[order], return_index=True, return_counts=True)
    place = np.arange(len(leads)) - np.repeat(first, counts)
    phases = mix_array(draws[order[first]]) >> np.uint64(11)
    phase = np.repeat(phases.astype(np.float64) / 2**53, counts)
    times = np.empty(len(leads), np.float64)
    times[order] = (place + phase) / np.repeat(counts, counts)
    return np.argsort(times, kind="stable")


def micro_batch(rows: KeyedRows, row_format: RowFormat) -> MicroBatch:
    """`rows` as the model reads them, masked."""
    tokens = rows.packed.tokens.astype(np.int32)
    documents, positions = documents_and_positions(rows.packed)
    masks = mask_rows(tokens, rows.keys, row_format.mask_fraction, row_format.mask_token_fraction)
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


def empty_rows(like: KeyedRows, count: int) -> KeyedRows:
    """`count` rows of nothing but padding."""
    length = like.packed.tokens.shape[1]
    documents = like.packed.ends.shape[1]
    rows = PackedRows(
        np.full((count, length), SPECIAL_TOKENS.pad, like.packed.tokens.dtype),
        np.zeros((count, documents), np.int32),
        np.zeros(count, np.int32),
    )
    return KeyedRows(rows, np.zeros(count, np.uint64))


def filled(rows: KeyedRows, count: int) -> KeyedRows:
    """`rows`, and empty ones after them, `count` in all."""
    if len(rows.keys) == count:
        return rows
    return join([rows, empty_rows(rows, count - len(rows.keys))])


def micro_batches(rows: KeyedRows, row_format: RowFormat) -> list[MicroBatch]:
    """`rows` in order, `micro_rows` at a time; masked all at once, because a call has its price."""
    size = row_format.micro_rows
    masked = _MASKED_TOKENS // row_format.row_length
    masked = max(1, masked // size) * size
    batches = []
    for first in range(0, len(rows.keys), masked):
        part = rows.take(slice(first, first + masked))
        whole = micro_batch(part, row_format)
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
