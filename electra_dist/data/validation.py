"""Validation: always the same rows of the held-out split,
with the same masks, dealt evenly to the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from electra_dist.batch import MicroBatch, SpecialTokens
from electra_dist.config import Config
from electra_dist.data.packing import PackedRows
from electra_dist.data.rows import KeyedRows, RowSource, join, micro_batch
from electra_dist.data.shards.manifest import VALIDATION, Manifest


def has_validation(manifest: Manifest) -> bool:
    """Whether any documents are held out."""
    return manifest.facts.validation.blocks > 0


def validation_rows(config: Config, manifest: Manifest) -> KeyedRows | None:
    """The first `validation.rows` rows of the validation split with their keys;
    None when the split is empty.
    """
    parts = []
    found = 0
    source = RowSource(config, manifest, VALIDATION)
    for block in range(len(source)):
        if found >= config.validation.rows:
            break
        parts.append(source.rows(0, block))
        found += len(parts[-1].keys)
    if parts:
        return join(parts).take(slice(0, config.validation.rows))
    return None


def validation_micro_batches(
    config: Config, manifest: Manifest, rank: int, world_size: int
) -> Iterator[MicroBatch]:
    """The first `validation.rows` rows of the validation split, always with the same masks.

    Row i belongs to rank i % W. Every rank gets the same number of micro-batches; rows that run out
    are empty: [PAD] everywhere, weights 0. Nothing at all when the split is empty
    (`has_validation`).
    """
    rows = validation_rows(config, manifest)
    if rows is not None:
        yield from deal(rows, config, manifest.facts.special_tokens, rank, world_size)


def deal(
    rows: KeyedRows, config: Config, specials: SpecialTokens, rank: int, world_size: int
) -> Iterator[MicroBatch]:
    """This rank's micro-batches of `rows`, each masked when it is asked for."""
    size = config.train.micro_rows
    per_rank = -(-len(rows.keys) // (world_size * size)) * size
    own = rows.take(slice(rank, None, world_size))
    whole = join([own, _empty_rows(own, per_rank - len(own.keys), specials)])
    for first in range(0, per_rank, size):
        yield micro_batch(whole.take(slice(first, first + size)), config, specials)


def _empty_rows(like: KeyedRows, count: int, specials: SpecialTokens) -> KeyedRows:
    """`count` rows of nothing but padding."""
    length = like.packed.tokens.shape[1]
    documents = like.packed.ends.shape[1]
    rows = PackedRows(
        np.full((count, length), specials.pad, like.packed.tokens.dtype),
        np.zeros((count, documents), np.int32),
        np.zeros(count, np.int32),
    )
    return KeyedRows(rows, np.zeros(count, np.uint64))
