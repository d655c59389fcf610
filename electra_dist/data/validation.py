"""Validation: always the same rows of the held-out split,
with the same masks, dealt evenly to the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from electra_dist.batch import MicroBatch, SpecialTokens
from electra_dist.data.rows import KeyedRows, RowSource, filled, join, micro_batch
from electra_dist.data.shards.manifest import VALIDATION
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import RowFormat


class HeldOut(NamedTuple):
    """The held-out rows of one source."""

    source: str
    rows: KeyedRows


def held_out(data: RunData, row_format: RowFormat, count: int) -> list[HeldOut]:
    """The first rows of the validation split of each source that has one, `count` in all.

    Sources give rows as they do in training: each its share of `count`, at least one.
    """
    holding = [
        (number, source)
        for number, source in enumerate(data.sources)
        if source.manifest.facts.validation.blocks
    ]
    whole = sum(source.share for _, source in holding)
    found = []
    before = 0  # shares of the sources so far
    for number, source in holding:
        # rounded so that all sources together give `count`
        first = count * before // whole
        before += source.share
        wanted = max(1, count * before // whole - first)
        reader = BlockReader(source.manifest, VALIDATION)
        rows = RowSource(row_format, reader, VALIDATION, data.special_tokens, number)
        found.append(HeldOut(source.name, _first_rows(rows, wanted)))
    return found


def _first_rows(source: RowSource, count: int) -> KeyedRows:
    parts = []
    found = 0
    for block in range(len(source)):
        if found >= count:
            break
        parts.append(source.rows(0, block))
        found += len(parts[-1].keys)
    return join(parts).take(slice(0, count))


def validation_rows(data: RunData, row_format: RowFormat, count: int) -> KeyedRows | None:
    """The rows of `held_out`, source after source; None when nothing is held out."""
    parts = [part.rows for part in held_out(data, row_format, count)]
    if parts:
        return join(parts)
    return None


def deal(
    rows: KeyedRows, row_format: RowFormat, specials: SpecialTokens, rank: int, world_size: int
) -> Iterator[MicroBatch]:
    """This rank's micro-batches of `rows`, each masked when it is asked for.

    Row i belongs to rank i % W. Every rank gets the same number of micro-batches; rows that run out
    are empty: [PAD] everywhere, weights 0.
    """
    size = row_format.micro_rows
    per_rank = -(-len(rows.keys) // (world_size * size)) * size
    whole = filled(rows.take(slice(rank, None, world_size)), per_rank, specials)
    for first in range(0, per_rank, size):
        yield micro_batch(whole.take(slice(first, first + size)), row_format, specials)


class DealtBatch(NamedTuple):
    """A micro-batch, and the number of its first row."""

    first: int
    batch: MicroBatch


def deal_whole(
    rows: KeyedRows, row_format: RowFormat, specials: SpecialTokens, rank: int, world_size: int
) -> Iterator[DealtBatch]:
    """This rank's micro-batches of `rows`, each masked when it is asked for.

    Micro-batch i belongs to rank i % W, and is the same whatever the world size, so that what is
    computed of it is the same too. Some ranks may get one less than others. Rows that run out are
    empty, as in `deal`.
    """
    size = row_format.micro_rows
    for first in range(rank * size, len(rows.keys), world_size * size):
        chosen = filled(rows.take(slice(first, first + size)), size, specials)
        yield DealtBatch(first, micro_batch(chosen, row_format, specials))
