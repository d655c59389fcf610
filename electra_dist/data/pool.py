"""The rows at hand: the current block of each of a rank's streams, side by side, so that a step is
one gather.

Comes in: positions in the streams. Goes out: the next rows of every stream, as one `KeyedRows`. A
block is read and packed when its first row is wanted; its place is used again by the next block of
its stream.

Letters: S streams of this rank, C rows that the place of a stream holds, L row length, K documents
a row at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from electra_dist.data.packing import Int64, PackedRows
from electra_dist.data.rows import KeyedRows, RowSource, join
from electra_dist.data.streams import BlockOrder, StreamPosition
from electra_dist.errors import DataError


class RowPool:
    """Streams and where they stand; `positions` is (S, 2) int64, a `StreamPosition` each."""

    def __init__(
        self, positions: Mapping[int, StreamPosition], order: BlockOrder, source: RowSource
    ) -> None:
        self._streams = list(positions)
        self._order = order
        self._source = source
        self.positions: Int64 = np.array(list(positions.values()), np.int64)
        # the same memory
        self._blocks = self.positions[:, 0]
        self._rows = self.positions[:, 1]
        # rows of each block at hand; 0 where it is still to be read
        self._sizes = np.zeros(len(positions), np.int64)
        # the last block of each stream that is being read ahead
        self._expected = self._blocks - 1
        self._at_hand: KeyedRows | None = None  # (S * C) rows

    def take(self, count: int) -> KeyedRows:
        """The next `count` rows of each stream, stream after stream."""
        parts = []
        places = []
        for found, place in self._advance(count):
            assert self._at_hand is not None
            parts.append(self._at_hand.take(found))
            places.append(place)
        if len(parts) == 1:
            return parts[0]
        return join(parts).take(np.argsort(np.concatenate(places)))

    def drop(self, count: int) -> None:
        """Pass over the next `count` rows of each stream."""
        for _ in self._advance(count):
            pass

    def epochs(self) -> float:
        """Epochs consumed, if all streams stand where the first one does."""
        block = int(self._blocks[0])
        row = int(self._rows[0])
        size = int(self._sizes[0])
        done = block + (row / size if row else 0)
        return done * self._order.streams / self._order.blocks

    def _advance(self, count: int) -> Iterator[tuple[Int64, Int64]]:
        """Where the next rows are at hand, and which rows of the S * `count` they are;
        once a round of blocks.
        """
        wanted = np.full(len(self._streams), count)
        taken = np.zeros(len(self._streams), np.int64)
        while wanted.any():
            self._load(np.flatnonzero((self._sizes == 0) & (wanted > 0)))
            part = np.minimum(wanted, self._sizes - self._rows)
            stream = np.repeat(np.arange(len(part)), part)
            inside = np.arange(len(stream)) - np.repeat(np.cumsum(part) - part, part)
            yield (
                (stream * self._room + self._rows[stream]) + inside,
                (stream * count + taken[stream]) + inside,
            )
            wanted -= part
            taken += part
            self._rows += part
            used_up = (self._rows == self._sizes) & (self._sizes > 0)
            self._blocks[used_up] += 1
            self._rows[used_up] = self._sizes[used_up] = 0

    @property
    def _room(self) -> int:
        """C."""
        if self._at_hand is None:
            return 0
        return len(self._at_hand.keys) // len(self._streams)

    def _load(self, numbers: Int64) -> None:
        """Read the current block of the streams with these numbers."""
        self._source.expect(self._coming(numbers.tolist()))
        for number in numbers.tolist():
            block, row = self.positions[number].tolist()
            place = self._order.place(self._streams[number], block)
            rows = self._source.rows(place.epoch, place.block)
            if row >= len(rows.keys):
                raise DataError(
                    f"state of the data loader: row {row} of a block with {len(rows.keys)} rows;"
                    " the shards are not the ones that the checkpoint was made with"
                )
            self._put(number, rows)

    def _coming(self, numbers: list[int]) -> list[int]:
        """The current blocks of these streams, and then those that follow them; each once."""
        found = []
        for later in (0, 1):
            for number in numbers:
                block = int(self._blocks[number]) + later
                if block > self._expected[number]:
                    self._expected[number] = block
                    found.append(self._order.place(self._streams[number], block).block)
        return found

    def _put(self, number: int, rows: KeyedRows) -> None:
        size = len(rows.keys)
        if size > self._room:
            self._grow(rows, size + size // 16)
        assert self._at_hand is not None
        first = number * self._room
        for target, array in zip(_arrays(self._at_hand), _arrays(rows), strict=True):
            target[first : first + size] = array
        self._sizes[number] = size

    def _grow(self, like: KeyedRows, room: int) -> None:
        """Make the place of each stream `room` rows large."""
        grown = [
            np.zeros((len(self._streams), room, *array.shape[1:]), array.dtype)
            for array in _arrays(like)
        ]
        if self._at_hand is not None:
            for new, old in zip(grown, _arrays(self._at_hand), strict=True):
                new[:, : self._room] = old.reshape(len(self._streams), self._room, *old.shape[1:])
        tokens, ends, counts, keys = (array.reshape(-1, *array.shape[2:]) for array in grown)
        self._at_hand = KeyedRows(PackedRows(tokens, ends, counts), keys)


def _arrays(rows: KeyedRows) -> tuple[npt.NDArray[np.generic], ...]:
    return rows.packed.tokens, rows.packed.ends, rows.packed.counts, rows.keys
