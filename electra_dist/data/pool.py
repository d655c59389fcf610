"""The rows at hand: the open blocks of a rank's streams, packed, so that rows of many are one
gather.

Comes in: positions in the streams. Goes out: the next rows of every stream, as one `KeyedRows`. The
next block of a lane is opened ahead of its turn. The blocks of all lanes end at about the same
time, because they begin together; opening a few at each step keeps a step from waiting for all of
them. A row that is taken makes room for one of a next block, so that the memory is little more than
one block for each lane.

Letters: S streams of this rank, A lanes of a stream, C rows of a block at most, R rows that there
is room for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from electra_dist.data.lanes import Int64, LaneLayout, StreamStates, Turns
from electra_dist.data.packing import PackedRows
from electra_dist.data.rows import KeyedRows, RowSource
from electra_dist.data.streams import BlockOrder, BlockPlace
from electra_dist.errors import DataError

#: Next blocks are opened so much faster than blocks are used up.
HASTE = 1.25
#: Blocks whose reading has begun, in blocks that a step opens and one more.
ASKED_AHEAD = 4


class RowPool:
    """Streams and where they stand; `states` knows the positions."""

    def __init__(
        self,
        layout: LaneLayout,
        streams: Sequence[int],
        positions: Int64,
        sources: Sequence[RowSource],
        seed: int,
    ) -> None:
        self.states = StreamStates(layout, positions)
        self._layout = layout
        self._streams = list(streams)
        self._sources = sources
        self._orders = [
            BlockOrder(blocks, layout.streams * lanes, seed, number)
            for number, (blocks, lanes) in enumerate(zip(layout.blocks, layout.counts, strict=True))
        ]
        self._turns = Turns(layout, self._streams, seed, sources[0].row_length)
        self._source_of_lane = layout.source_of_lane
        # the same memory: lane number s * A + a
        self._blocks = self.states.blocks.reshape(-1)
        self._taken = self.states.taken.reshape(-1)
        # rows of the open block and of the one after it; 0 where it is still to be opened
        self._sizes = np.zeros(len(self._blocks), np.int64)
        self._next_sizes = np.zeros(len(self._blocks), np.int64)
        # (2 * S * A, C) where each row lies: a lane has a list for its open block and one for the
        # block after it, and `side` says which is which
        self._places = np.zeros((2 * len(self._blocks), 0), np.int64)
        self._side = np.zeros(len(self._blocks), np.int64)
        self._at_hand: KeyedRows | None = None  # R rows
        self._free = np.zeros(0, np.int64)  # those without content
        self._most = 0  # rows with content, at the most
        self._has_begun = False
        # whether the reading of a lane's next block has begun
        self._asked = np.zeros(len(self._blocks), np.bool_)
        self._due = 0.0  # blocks to open ahead

    @property
    def bytes(self) -> int:
        """The most memory that open blocks have taken, with those opened ahead."""
        if self._at_hand is None:
            return 0
        return self._most * sum(array[:1].nbytes for array in _arrays(self._at_hand))

    # --- rows -------------------------------------------------------------------------------------

    def take(self, count: int) -> KeyedRows:
        """The next `count` rows of each stream, stream after stream."""
        self._open_ahead(count)
        at_once = min(count, self._turns.at_once)
        if at_once == count:
            return self._draw(count)
        whole: KeyedRows | None = None
        for first in range(0, count, at_once):
            part = self._draw(min(at_once, count - first))
            if whole is None:
                whole = _room_for(part, len(self._streams) * count)
            _put_turns(whole, part, len(self._streams), first)
        assert whole is not None
        return whole

    def drop(self, count: int) -> None:
        """Pass over the next `count` rows of each stream."""
        self.take(count)

    def _draw(self, count: int) -> KeyedRows:
        """The same for so few rows that each comes from another lane."""
        source, lanes = self._turns.next(self.states, count)
        number = np.arange(len(lanes))
        flat = (lanes + number[:, None] * self._layout.lanes).reshape(-1)
        missing = flat[self._sizes[flat] == 0]
        self._ask(missing)
        for lane in missing.tolist():
            self._open(lane)
        assert self._at_hand is not None
        places = self._places[2 * flat + self._side[flat], self._taken[flat]]
        rows = self._at_hand.take(places)
        self._free = np.concatenate([self._free, places])
        self._taken[flat] += 1
        self._turn_over(flat[self._taken[flat] == self._sizes[flat]])
        real = rows.packed.ends[:, -1].astype(np.int64).reshape(lanes.shape)
        self.states.rows[number, source] += count
        self.states.tokens[number, source] += real.sum(axis=1)
        return rows

    def _turn_over(self, lanes: Int64) -> None:
        """Go on to the next block of these lanes, which may be at hand already."""
        self._blocks[lanes] += 1
        self._taken[lanes] = 0
        self._sizes[lanes] = self._next_sizes[lanes]
        self._next_sizes[lanes] = 0
        self._side[lanes] ^= 1

    # --- blocks -----------------------------------------------------------------------------------

    def _open_ahead(self, count: int) -> None:
        """Open a few blocks before their turn, those first that are wanted soonest.

        The very first step does not wait for it. What is opened changes no result.
        """
        if not self._has_begun:
            self._has_begun = True
            return
        lanes = len(self._sizes)
        # of the blocks that are open, what a step uses up
        sizes = self._sizes[self._sizes > 0]
        used_up = float(count * len(self._streams))
        if len(sizes):
            used_up *= float((1 / sizes).mean())
        self._due = min(self._due + HASTE * used_up, float(lanes))
        some = int(self._due)
        self._due -= some
        left = self._sizes - self._taken
        left[self._sizes == 0] = 0
        left[self._next_sizes > 0] = np.iinfo(np.int64).max
        # those of the next steps are read meanwhile
        soon = min(lanes, ASKED_AHEAD * (some + 1))
        if soon < lanes:
            chosen = np.argpartition(left, soon - 1)[:soon]
        else:
            chosen = np.arange(lanes)
        chosen = chosen[np.argsort(left[chosen], kind="stable")]
        self._ask(chosen[self._next_sizes[chosen] == 0])
        for lane in chosen[:some][self._next_sizes[chosen[:some]] == 0].tolist():
            self._open(lane)

    def _ask(self, lanes: Int64) -> None:
        """Begin to read the blocks that these lanes will open, in this order."""
        for lane in lanes[~self._asked[lanes]].tolist():
            source, place = self._place(lane)
            self._sources[source].expect((place.block,))
            self._asked[lane] = True

    def _place(self, lane: int) -> tuple[int, BlockPlace]:
        """The source of a lane, and the block that it opens next."""
        stream, inside = divmod(lane, self._layout.lanes)
        source = int(self._source_of_lane[inside])
        number = self._layout.canonical(self._streams[stream], inside)
        # its open block, or the one after it where that is at hand
        block = int(self._blocks[lane]) + bool(self._sizes[lane] > 0)
        return source, self._orders[source].place(number, block)

    def _open(self, lane: int) -> None:
        """Read the lane's open block, or the one after it where that is at hand."""
        source, place = self._place(lane)
        rows = self._sources[source].rows(place.epoch, place.block)
        self._asked[lane] = False
        size = len(rows.keys)
        if self._sizes[lane] > 0:
            self._put(2 * lane + 1 - int(self._side[lane]), rows)
            self._next_sizes[lane] = size
            return
        taken = int(self._taken[lane])
        if taken >= size:
            raise DataError(
                f"state of the data loader: row {taken} of a block with {size} rows;"
                " the shards are not the ones that the checkpoint was made with"
            )
        self._put(2 * lane + int(self._side[lane]), rows)
        self._sizes[lane] = size

    def _put(self, number: int, rows: KeyedRows) -> None:
        """Keep the rows of a block; list number `number` says where."""
        size = len(rows.keys)
        lack = size - self._places.shape[1]
        if lack > 0:
            self._places = np.pad(self._places, ((0, 0), (0, lack)))
        if size > len(self._free):
            self._grow(rows, size)
        assert self._at_hand is not None
        # those that were used before come first
        places = self._free[-size:]
        self._free = self._free[:-size]
        self._most = max(self._most, len(self._at_hand.keys) - len(self._free))
        self._places[number, :size] = places
        for target, array in zip(_arrays(self._at_hand), _arrays(rows), strict=True):
            target[places] = array

    def _grow(self, like: KeyedRows, size: int) -> None:
        """Make room for a block of `size` rows, and for more to come.

        Memory that holds no row is not touched, so it takes none of the machine's; moving the rows
        later takes a step's time. At first there is room for two blocks of each lane.
        """
        before = 0
        more = 2 * len(self._sizes) * size
        if self._at_hand is not None:
            before = len(self._at_hand.keys)
            more = max(size, before)
        grown = _room_for(like, before + more)
        if self._at_hand is not None:
            for new, old in zip(_arrays(grown), _arrays(self._at_hand), strict=True):
                new[:before] = old
        self._at_hand = grown
        self._free = np.concatenate([np.arange(before, before + more)[::-1], self._free])

    # --- how far ----------------------------------------------------------------------------------

    def epochs(self) -> list[float]:
        """Epochs consumed of each source, if all streams stand where the first one does."""
        layout = self._layout
        found = []
        for first, lanes, blocks in zip(
            layout.first_lanes.tolist(), layout.counts, layout.blocks, strict=True
        ):
            done = 0.0
            for lane in range(first, first + lanes):
                taken = int(self._taken[lane])
                if taken and not self._sizes[lane]:
                    self._open(lane)  # after a resume
                done += int(self._blocks[lane])
                if taken:
                    done += taken / int(self._sizes[lane])
            found.append(done * layout.streams / blocks)
        return found


def _arrays(rows: KeyedRows) -> tuple[npt.NDArray[np.generic], ...]:
    return rows.packed.tokens, rows.packed.ends, rows.packed.counts, rows.keys


def _room_for(like: KeyedRows, count: int) -> KeyedRows:
    """Room for `count` rows."""
    tokens, ends, counts, keys = (
        np.empty((count, *array.shape[1:]), array.dtype) for array in _arrays(like)
    )
    return KeyedRows(PackedRows(tokens, ends, counts), keys)


def _put_turns(whole: KeyedRows, part: KeyedRows, streams: int, first: int) -> None:
    """Put the rows of some turns, stream after stream, where they belong among all turns."""
    for target, array in zip(_arrays(whole), _arrays(part), strict=True):
        shaped = array.reshape(streams, -1, *array.shape[1:])
        turns = slice(first, first + shaped.shape[1])
        target.reshape(streams, -1, *array.shape[1:])[:, turns] = shaped
