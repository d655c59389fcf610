"""Rows with keys: one block packed, its rows in a drawn order, masked into micro-batches on demand.

Comes in: a block of a split, by number. Goes out: `KeyedRows`, and `MicroBatch`es made of them.
What a row holds, and how it is masked, depends on (configuration, data, seed, split, epoch, block,
row) only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from electra_dist.batch import MicroBatch, SpecialTokens, UInt64
from electra_dist.config import Config
from electra_dist.data.masking import absorb, hash_words, mask_rows
from electra_dist.data.packing import (
    Int64,
    PackedRows,
    concatenate,
    cumulative_lengths,
    documents_and_positions,
    pack_block,
)
from electra_dist.data.shards.manifest import TRAIN, VALIDATION, Manifest, SplitName
from electra_dist.data.shards.reading import BlockReader, sign_of_data

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
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        split: SplitName,
        tell: Callable[[str], None] = sign_of_data,
    ) -> None:
        self._reader = BlockReader(manifest, split, tell)
        self._row_length = config.data.row_length
        self._documents = config.data.max_documents_per_row
        self._specials = manifest.facts.special_tokens
        self._domain = (config.train.seed, _SPLIT_NUMBER[split])

    def __len__(self) -> int:
        return len(self._reader)

    def rows(self, epoch: int, block: int) -> KeyedRows:
        """All rows of one block as `epoch` sees them."""
        packed = pack_block(
            self._reader.read(block), self._row_length, self._documents, self._specials
        )
        number = np.arange(len(packed), dtype=np.uint64)
        order, key = (
            absorb(
                np.full(len(packed), hash_words(purpose, *self._domain, epoch, block), np.uint64),
                number,
            )
            for purpose in (_ROW_ORDER, _ROW_KEY)
        )
        return KeyedRows(packed.take(np.argsort(order, kind="stable")), key)


def micro_batch(rows: KeyedRows, config: Config, specials: SpecialTokens) -> MicroBatch:
    """`rows` as the model reads them, masked."""
    tokens = rows.packed.tokens.astype(np.int32)
    documents, positions = documents_and_positions(rows.packed)
    masks = mask_rows(
        tokens,
        rows.keys,
        config.data.mask_fraction,
        config.data.mask_token_fraction,
        specials,
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


def micro_batches(rows: KeyedRows, config: Config, specials: SpecialTokens) -> list[MicroBatch]:
    """`rows` in order, `train.micro_rows` at a time;
    masked all at once, because a call has its price.
    """
    size = config.train.micro_rows
    masked = _MASKED_TOKENS // config.data.row_length
    masked = max(1, masked // size) * size
    batches = []
    for first in range(0, len(rows.keys), masked):
        part = rows.take(slice(first, first + masked))
        whole = micro_batch(part, config, specials)
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
