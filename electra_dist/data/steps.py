"""Steps: shards in, whole steps out, made one after the other by whoever asks for the next one.

1. order    which block comes next in each lane (`streams`), and which lane gives a row (`lanes`)
2. read     the block, checked (`shards`)
3. pack     into rows, once a block, and put the rows into a drawn order (`packing`, `rows`)
4. take     global_rows / S rows of each of this rank's streams, all at once (`pool`)
5. mask     from the rows' keys (`masking`), and cut into micro-batches (`rows`)

Rows that are skipped (`skips`) are taken and dropped, before they are masked.

What a step holds depends on configuration, data and seed only; ranks split it, they do not change
it (DESIGN D2). A rank with fewer streams than another fills its step with empty rows, which count
for nothing. `loader` makes the same steps ahead, in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from electra_dist.batch import Step
from electra_dist.data.lanes import LaneLayout
from electra_dist.data.pool import RowPool
from electra_dist.data.rows import RowSource, filled, micro_batches
from electra_dist.data.shards.manifest import TRAIN
from electra_dist.data.shards.reading import BlockReader, sign_of_data
from electra_dist.data.skips import Interval, Skips
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.streams import LoaderState, Positions
from electra_dist.errors import DataError


def order_fingerprint(plan: StepPlan, data: RunData) -> str:
    """Names everything that the positions in a `LoaderState` depend on."""
    layout = LaneLayout.of(data, plan.streams, plan.open_blocks)
    parts = [
        data.fingerprint,
        plan.rows.seed,
        plan.streams,
        plan.rows.row_length,
        plan.rows.max_documents_per_row,
        "lanes",
        layout.counts,
        layout.shares,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def first_state(plan: StepPlan, data: RunData, state: LoaderState | None) -> LoaderState:
    """The part of `state` that this rank goes on from, or the start.

    Raises `DataError` when there is nothing to train on or `state` belongs to other data.
    """
    for manifest in data.manifests:
        if not manifest.facts.train.blocks:
            raise DataError(f"{manifest.path}: the split train is empty; build the shards again")
    order = order_fingerprint(plan, data)
    width = LaneLayout.of(data, plan.streams, plan.open_blocks).width
    mine = plan.own_streams
    if state is None:
        return LoaderState(
            0, order, Positions(mine, np.zeros((len(mine), width), np.int64)), drawn=0
        )
    if state.order != order:
        raise DataError(
            "state of the data loader: it belongs to other shards or shares of them, to another"
            " train.seed, data.streams, data.open_blocks, data.row_length or"
            " data.max_documents_per_row, or to an earlier version of this software; go on with"
            " the ones that the checkpoint was made with"
        )
    missing = [stream for stream in mine if stream not in state.streams]
    if missing:
        raise DataError(
            f"state of the data loader: it lacks {len(missing)} of {plan.streams} streams; merge"
            " all ranks' states"
        )
    if any(len(state.streams[stream]) != width for stream in mine):
        raise DataError(
            f"state of the data loader: damaged, a stream has not {width} numbers; resume from"
            " another checkpoint"
        )
    positions = np.array([state.streams[stream] for stream in mine], np.int64).reshape(-1, width)
    return LoaderState(state.step, order, Positions(mine, positions), state.drawn)


class StepSource:
    """This rank's steps, in order, from `state` to number `plan.steps`, each made when it is asked
    for.

    `skipped` are steps of data that are passed over, next to those of the plan; what lies before
    `state` is behind us, whatever they say. `tell` hears which block is being read.

    A step's rows are those of the rank's streams, ascending, each stream's in its order, then empty
    ones. `Step.epoch` is computed from the rank's first stream (stream 0 on rank 0, whatever the
    world size). Raises what `first_state` raises, and `DataError` when shards are damaged.
    """

    def __init__(
        self,
        plan: StepPlan,
        data: RunData,
        state: LoaderState | None = None,
        skipped: Iterable[Interval] = (),
        tell: Callable[[str], None] = sign_of_data,
    ) -> None:
        start = first_state(plan, data, state)
        specials = data.special_tokens
        self._plan = plan
        self._specials = specials
        self._skips = Skips([*plan.skipped, *skipped])
        self._pool = RowPool(
            LaneLayout.of(data, plan.streams, plan.open_blocks),
            plan.own_streams,
            np.array([start.streams[stream] for stream in plan.own_streams], np.int64),
            [
                RowSource(plan.rows, BlockReader(manifest, TRAIN, tell), TRAIN, specials, number)
                for number, manifest in enumerate(data.manifests)
            ],
            plan.rows.seed,
        )
        self._tokens = [manifest.facts.train.tokens for manifest in data.manifests]
        self._order_name = start.order
        self._next = start.step
        self._drawn = start.drawn

    @property
    def state(self) -> LoaderState:
        """Where the data stands after the last step that was made."""
        positions = Positions(self._plan.own_streams, self._pool.states.positions())
        return LoaderState(self._next, self._order_name, positions, self._drawn)

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        index = self._next
        if index >= self._plan.steps:
            raise StopIteration
        wanted = self._skips.next_kept(self._drawn)
        for _ in range(self._drawn, wanted):
            self._pool.drop(self._plan.rows_per_stream)
        step = self._make(index)
        self._next = index + 1
        self._drawn = wanted + 1
        return step

    def _make(self, index: int) -> Step:
        plan = self._plan
        rows = self._pool.take(plan.rows_per_stream)
        rows = filled(rows, plan.micro_batches * plan.rows.micro_rows, self._specials)
        batches = micro_batches(rows, plan.rows, self._specials)
        epochs = self._pool.epochs()
        passed = sum(epoch * tokens for epoch, tokens in zip(epochs, self._tokens, strict=True))
        return Step(
            index=index,
            epoch=passed / sum(self._tokens),
            micro_batches=tuple(batches),
            masked_count=sum(int(batch.masked_weights.sum(dtype=np.float64)) for batch in batches),
            real_count=int((rows.packed.ends[:, -1]).sum()),
            source_epochs=tuple(epochs),
        )
