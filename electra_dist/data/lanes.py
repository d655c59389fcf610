"""Lanes: the open blocks that a stream draws its rows from, and which of them gives the next row.

A stream that reads one block to its end gives the rows of a long document one after the other. So
each stream keeps several blocks of every source open, one in each *lane*. Its rows come from the
lanes of a source in turn, and the source of a row is the one that lacks most of its share.

The blocks of a source are dealt to its S * K lanes in turn (`streams`): lane k of stream s is
number k * S + s. Nothing here depends on ranks: a stream goes its way wherever it is served.

Letters: S streams, N sources, K lanes of a source in a stream, A lanes of a stream, of all sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from electra_dist.data.masking import hash_words
from electra_dist.data.sources import WHOLE, RunData

Int64 = npt.NDArray[np.int64]
_PHASE = 0x7068617365  # the purpose of the keys drawn here


@dataclass(frozen=True)
class LaneLayout:
    """Which lanes a stream has; the same for every stream.

    streams  S, of all ranks together
    shares   (N,) of the sources, in tokens
    blocks   (N,) blocks of each source
    counts   (N,) lanes of each source, K
    """

    streams: int
    shares: tuple[int, ...]
    blocks: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, data: RunData, streams: int, open_blocks: int) -> LaneLayout:
        """At most `open_blocks` lanes for a source, fewer for one with a small share or few blocks.

        Where a source has fewer blocks than lanes, some of these would begin in a later epoch.
        """
        shares = tuple(source.share for source in data.sources)
        blocks = tuple(manifest.facts.train.blocks for manifest in data.manifests)
        counts = []
        for share, count in zip(shares, blocks, strict=True):
            wanted = -(-open_blocks * share // WHOLE)
            counts.append(max(1, min(wanted, open_blocks, count // streams)))
        return cls(streams, shares, blocks, tuple(counts))

    @property
    def lanes(self) -> int:
        """A."""
        return sum(self.counts)

    @property
    def width(self) -> int:
        """Numbers of a stream's position."""
        return 2 * len(self.counts) + 2 * self.lanes

    @property
    def first_lanes(self) -> Int64:
        """(N,) the first lane of each source."""
        counts = np.array(self.counts, np.int64)
        return np.cumsum(counts) - counts

    @property
    def source_of_lane(self) -> Int64:
        """(A,) the source of each lane."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def canonical(self, stream: int, lane: int) -> int:
        """The number of a stream's lane among all lanes of its source."""
        inside = lane - int(self.first_lanes[self.source_of_lane[lane]])
        return inside * self.streams + stream


class StreamStates:
    """Where streams stand, (S', ...) for the S' streams at hand.

    rows    (S', N)  rows that each source has given
    tokens  (S', N)  real tokens in them
    blocks  (S', A)  blocks that each lane has used up: the number of its open one
    taken   (S', A)  rows that are taken from it
    """

    def __init__(self, layout: LaneLayout, positions: Int64) -> None:
        count = len(layout.counts)
        parts = np.split(positions, [count, 2 * count, 2 * count + layout.lanes], axis=1)
        self.rows, self.tokens, self.blocks, self.taken = (part.copy() for part in parts)

    def positions(self) -> Int64:
        """(S', width) one row of numbers for each stream, in new memory."""
        return np.concatenate([self.rows, self.tokens, self.blocks, self.taken], axis=1)


class Turns:
    """Which lane gives the next row of each stream.

    The source is the one whose tokens, measured by its share, are furthest behind (stride
    scheduling; Waldspurger and Weihl 1995). A drawn head start of less than a row keeps the streams
    from choosing alike. All comparisons are of whole numbers below 2^53 and one division, so they
    come out the same everywhere.
    """

    def __init__(self, layout: LaneLayout, streams: Sequence[int], seed: int, row_length: int):
        self._layout = layout
        self._counts = np.array(layout.counts, np.int64)
        self._first = layout.first_lanes
        self._shares = np.array(layout.shares, np.float64)
        self._ahead = np.array(
            [
                [hash_words(_PHASE, seed, stream, i) % row_length for i in range(len(self._counts))]
                for stream in streams
            ],
            np.int64,
        )

    @property
    def at_once(self) -> int:
        """Turns that are known before a row of the first is taken, each of another lane."""
        if len(self._counts) == 1:
            return int(self._counts[0])
        return 1

    def next(self, states: StreamStates, count: int) -> tuple[Int64, Int64]:
        """(S',) source and (S', count) lanes of the next `count` rows; `count` up to `at_once`."""
        if len(self._counts) == 1:
            source = np.zeros(len(states.rows), np.int64)
        else:
            source = np.argmin((states.tokens + self._ahead) / self._shares, axis=1)
        turn = states.rows[np.arange(len(source)), source]
        lanes = (turn[:, None] + np.arange(count)) % self._counts[source, None]
        return source, lanes + self._first[source, None]
