"""Which block comes when: epoch permutations dealt to canonical lanes, and where the streams stand.

An epoch is a permutation of all N blocks, computed from (seed, epoch) and never stored. The epochs
follow one another without a seam: number g of the endless sequence is block `permutation(epoch = g
// N)(g % N)`. It is dealt to lanes in turn: with A lanes, block g = j * A + a is the j-th block of
lane a. Every stream has some of the lanes (`lanes`), and a step takes the same number of rows from
each stream; rank r of W serves the streams s with s % W == r. The state is a few numbers for each
stream: seeking reads its open blocks and no other (DESIGN D2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from electra_dist.data.masking import hash_words
from electra_dist.errors import DataError

_FEISTEL_ROUNDS = 6
_PERMUTE = 0x7065726D  # the purpose of the keys drawn here


class Permutation:
    """A pseudo-random permutation of 0 .. n - 1 in O(1) memory: a Feistel cipher on the smallest
    domain of 4^b numbers that holds n, applied until the result is below n (cycle walking; Black
    and Rogaway 2002).
    """

    def __init__(self, n: int, *key: int) -> None:
        self._n = n
        self._half = max(1, -(-(n - 1).bit_length() // 2))
        self._round_keys = [hash_words(_PERMUTE, *key, number) for number in range(_FEISTEL_ROUNDS)]

    def __call__(self, index: int) -> int:
        if not 0 <= index < self._n:
            raise IndexError(f"{index} of {self._n}")
        index = self._encrypt(index)
        while index >= self._n:
            index = self._encrypt(index)
        return index

    def _encrypt(self, index: int) -> int:
        mask = (1 << self._half) - 1
        left = index >> self._half
        right = index & mask
        for key in self._round_keys:
            left, right = right, left ^ (hash_words(key, right) & mask)
        return (left << self._half) | right


#: Where a stream stands, in the numbers of `lanes.StreamStates`: rows and tokens of each source,
#: then of each lane the number of its open block, then the rows that are taken from it.
StreamPosition = tuple[int, ...]


class Positions(Mapping[int, StreamPosition]):
    """The position of each of `streams`, held as one array (S, width) int64.

    One is made for every step and looked into at checkpoints only, so it costs next to nothing
    until then.
    """

    def __init__(self, streams: Sequence[int], positions: npt.NDArray[np.int64]) -> None:
        self._streams = streams
        self._positions = positions

    def __getitem__(self, stream: int) -> StreamPosition:
        try:
            return tuple(self._positions[self._streams.index(stream)].tolist())
        except ValueError:
            raise KeyError(stream) from None

    def __iter__(self) -> Iterator[int]:
        return iter(self._streams)

    def __len__(self) -> int:
        return len(self._streams)


class BlockPlace(NamedTuple):
    """Where block number g of the endless sequence is:
    its epoch, and its number among the split's blocks.
    """

    epoch: int
    block: int


class BlockOrder:
    """The endless sequence of the blocks of one source, dealt to `lanes` lanes."""

    def __init__(self, blocks: int, lanes: int, seed: int, source: int = 0) -> None:
        self.blocks = blocks
        self.lanes = lanes
        self._key: tuple[int, ...] = (seed,)
        if source:
            self._key = (seed, source)
        self._permutations: dict[int, Permutation] = {}

    def place(self, lane: int, j: int) -> BlockPlace:
        """The j-th block of a lane."""
        epoch, index = divmod(j * self.lanes + lane, self.blocks)
        if epoch not in self._permutations:
            if len(self._permutations) > 8:
                self._permutations.clear()
            self._permutations[epoch] = Permutation(self.blocks, *self._key, epoch)
        return BlockPlace(epoch, self._permutations[epoch](index))


def streams_of_rank(streams: int, rank: int, world_size: int) -> range:
    """The streams that rank `rank` of `world_size` serves, ascending."""
    return range(rank, streams, world_size)


@dataclass(frozen=True)
class LoaderState:
    """Where the data stands after the last consumed step.

    step     steps consumed
    order    names what positions mean (dataset, seed, streams, open blocks, row length, documents a
             row); they hold for it only
    streams  position of each stream: those of one rank, or of all ranks after `merge`
    drawn    steps of data behind these positions: the consumed ones, and those skipped before them
             (`skips`)
    """

    step: int
    order: str
    streams: Mapping[int, StreamPosition]
    drawn: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        streams = {str(stream): list(position) for stream, position in sorted(self.streams.items())}
        return {"step": self.step, "drawn": self.drawn, "layout": self.order, "streams": streams}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> LoaderState:
        """The inverse of `to_dict`; raises `DataError` when something is missing.

        A state of before `drawn` was kept is of a run that skipped nothing.
        """
        try:
            streams = {
                int(stream): tuple(int(number) for number in position)
                for stream, position in content["streams"].items()
            }
            step = int(content["step"])
            return cls(step, str(content["layout"]), streams, int(content.get("drawn", step)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"state of the data loader: damaged ({error!r}); resume from another checkpoint"
            ) from error

    @classmethod
    def merge(cls, states: list[LoaderState]) -> LoaderState:
        """The states of all ranks in one;
        raises `DataError` when they are not of one step of one run.
        """
        if len({(state.step, state.drawn, state.order) for state in states}) != 1:
            found = sorted({state.step for state in states})
            raise DataError(
                f"states of the data loader: not of one step of one run (steps {found})"
            )
        streams = {
            stream: position for state in states for stream, position in state.streams.items()
        }
        if len(streams) != sum(len(state.streams) for state in states):
            raise DataError("states of the data loader: two ranks served the same stream")
        return cls(states[0].step, states[0].order, streams, states[0].drawn)
