"""Steps: shards in, whole steps out, made one after the other by whoever asks for the next one.

1. order    which block comes next in each stream (`streams`)
2. read     the block, checked (`shards`)
3. pack     into rows, once a block, and put the rows into a drawn order (`packing`, `rows`)
4. take     global_rows / S rows of each of this rank's streams, all at once (`pool`)
5. mask     from the rows' keys (`masking`), and cut into micro-batches (`rows`)

Rows that are skipped (`skips`) are taken and dropped, before they are masked.

What a step holds depends on configuration, data and seed only; ranks split it, they do not change
it (DESIGN D2). `loader` makes the same steps ahead, in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from electra_dist.batch import Step
from electra_dist.config import Config, check_world
from electra_dist.data.pool import RowPool
from electra_dist.data.rows import RowSource, micro_batches
from electra_dist.data.shards.manifest import TRAIN, Manifest, check_vocabulary
from electra_dist.data.shards.reading import sign_of_data
from electra_dist.data.skips import Interval, Skips
from electra_dist.data.streams import BlockOrder, LoaderState, Positions, streams_of_rank
from electra_dist.errors import DataError


def order_fingerprint(config: Config, manifest: Manifest) -> str:
    """Names everything that the positions in a `LoaderState` depend on."""
    parts = [
        manifest.fingerprint,
        config.train.seed,
        config.data.streams,
        config.data.row_length,
        config.data.max_documents_per_row,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def first_state(
    config: Config, manifest: Manifest, rank: int, world_size: int, state: LoaderState | None
) -> LoaderState:
    """The part of `state` that this rank goes on from, or the start.

    Raises `ConfigError` when the world size or the vocabulary does not fit, `DataError` when there
    is nothing to train on or `state` belongs to other data.
    """
    check_world(config, world_size)
    check_vocabulary(config, manifest)
    if not manifest.facts.train.blocks:
        raise DataError(f"{manifest.path}: the split train is empty; build the shards again")
    streams = config.data.streams
    order = order_fingerprint(config, manifest)
    mine = streams_of_rank(streams, rank, world_size)
    if state is None:
        return LoaderState(0, order, Positions(mine, np.zeros((len(mine), 2), np.int64)), drawn=0)
    if state.order != order:
        raise DataError(
            "state of the data loader: it belongs to other shards, or to another train.seed,"
            " data.streams, data.row_length or data.max_documents_per_row; go on with the ones"
            " that the checkpoint was made with"
        )
    missing = [stream for stream in mine if stream not in state.streams]
    if missing:
        raise DataError(
            f"state of the data loader: it lacks {len(missing)} of {streams} streams; merge all"
            " ranks' states"
        )
    positions = np.array([state.streams[stream] for stream in mine], np.int64)
    return LoaderState(state.step, order, Positions(mine, positions), state.drawn)


class StepSource:
    """This rank's steps, in order, from `state` to number `steps` (default: `train.steps`), each
    made when it is asked for.

    `skipped` are steps of data that are passed over, beside those of `data.skip_steps`; what lies
    before `state` is behind us, whatever they say. `tell` hears which block is being read.

    A step's rows are those of the rank's streams, ascending, each stream's in its order;
    `Step.epoch` is computed from the rank's first stream (stream 0 on rank 0, whatever the world
    size). Raises what `first_state` raises, and `DataError` when shards are damaged.
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        rank: int,
        world_size: int,
        state: LoaderState | None = None,
        skipped: Iterable[Interval] = (),
        steps: int | None = None,
        tell: Callable[[str], None] = sign_of_data,
    ) -> None:
        start = first_state(config, manifest, rank, world_size, state)
        self._config = config
        self._specials = manifest.facts.special_tokens
        self._steps = config.train.steps
        if steps is not None:
            self._steps = steps
        self._skips = Skips([*config.data.skip_steps, *skipped])
        streams = config.data.streams
        order = BlockOrder(manifest.facts.train.blocks, streams, config.train.seed)
        self._pool = RowPool(start.streams, order, RowSource(config, manifest, TRAIN, tell))
        self._rows_per_stream = config.train.global_rows // streams
        self._order_name = start.order
        self._next = start.step
        self._drawn = start.drawn
        self._mine = streams_of_rank(streams, rank, world_size)

    @property
    def state(self) -> LoaderState:
        """Where the data stands after the last step that was made."""
        positions = Positions(self._mine, self._pool.positions.copy())
        return LoaderState(self._next, self._order_name, positions, self._drawn)

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        index = self._next
        if index >= self._steps:
            raise StopIteration
        wanted = self._skips.next_kept(self._drawn)
        for _ in range(self._drawn, wanted):
            self._pool.drop(self._rows_per_stream)
        step = self._make(index)
        self._next = index + 1
        self._drawn = wanted + 1
        return step

    def _make(self, index: int) -> Step:
        rows = self._pool.take(self._rows_per_stream)
        batches = micro_batches(rows, self._config, self._specials)
        return Step(
            index=index,
            epoch=self._pool.epochs(),
            micro_batches=tuple(batches),
            masked_count=sum(int(batch.masked_weights.sum(dtype=np.float64)) for batch in batches),
            real_count=int((rows.packed.ends[:, -1]).sum()),
        )
