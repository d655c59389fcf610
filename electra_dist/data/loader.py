"""The loader: shards in, whole steps out.

1. order    which block comes next in each stream (`streams`)
2. read     the block, checked (`shards`)
3. pack     into rows, once a block, and put the rows into a drawn order (`packing`, `rows`)
4. take     global_rows / S rows of each of this rank's streams
5. mask     from the rows' keys (`masking`), and cut into micro-batches (`rows`)

Rows that are skipped (`skips`) are taken and dropped, before they are masked.

A background thread prepares whole steps ahead; the state is that of the last step *consumed*. What a step holds
depends on configuration, data and seed only; ranks split it, they do not change it (DESIGN D2).
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np

from electra_dist.batch import Step
from electra_dist.config import Config, check_world
from electra_dist.data.manifest import TRAIN, Manifest, check_vocabulary
from electra_dist.data.rows import KeyedRows, RowSource, documents_per_row, join, micro_batches
from electra_dist.data.skips import Interval, Skips
from electra_dist.data.streams import BlockOrder, LoaderState, StreamPosition, streams_of_rank
from electra_dist.errors import ConfigError, DataError

#: Between two looks whether a step that does not come is still wanted; for the thread to end.
_WAIT_SECONDS, _CLOSE_SECONDS = 0.2, 2.0


def stream_count(config: Config) -> int:
    """S, the number of canonical streams."""
    if config.data.streams is None:
        raise ConfigError("data.streams is not resolved; load the configuration with `config.load`")
    return config.data.streams


def layout_of(config: Config, manifest: Manifest) -> str:
    """Names everything that the positions in a `LoaderState` depend on."""
    parts = [
        manifest.fingerprint,
        config.train.seed,
        stream_count(config),
        config.data.row_length,
        documents_per_row(config),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class _StreamCursor:
    """One stream: its position, and the rows of its current block."""

    def __init__(self, stream: int, position: StreamPosition, order: BlockOrder, source: RowSource) -> None:
        self._stream, self.position = stream, position
        self._order, self._source = order, source
        self._current: KeyedRows | None = None

    def take(self, count: int) -> list[KeyedRows]:
        """The next `count` rows, as parts of one or more blocks."""
        parts = []
        while count:
            rows, (j, row) = self._load(), self.position
            part = rows.take(slice(row, min(row + count, len(rows.keys))))
            parts.append(part)
            count -= len(part.keys)
            row += len(part.keys)
            if row < len(rows.keys):
                self.position = StreamPosition(j, row)
            else:
                self.position, self._current = StreamPosition(j + 1, 0), None
        return parts

    def _load(self) -> KeyedRows:
        if self._current is None:
            place = self._order.place(self._stream, self.position.j)
            self._current = self._source.rows(place.epoch, place.block)
            if self.position.row >= len(self._current.keys):
                raise DataError(
                    f"state of the data loader: row {self.position.row} of a block with {len(self._current.keys)} rows;"
                    " the shards are not the ones that the checkpoint was made with"
                )
        return self._current

    def epochs(self) -> float:
        """Epochs consumed, if all streams stand where this one does."""
        j, row = self.position
        done = j + (row / len(self._load().keys) if row else 0)
        return done * self._order.streams / self._order.blocks


class TrainLoader:
    """This rank's steps, in order, from `state` to `train.steps`; prepared ahead by a thread.

    `skipped` are steps of data that are passed over, beside those of `data.skip_steps`; what lies before `state` is
    behind us, whatever they say.

    A step's rows are those of the rank's streams, ascending, each stream's in its order; `Step.epoch` is computed from
    the rank's first stream (stream 0 on rank 0, whatever the world size). Raises `ConfigError` when the world size or
    the vocabulary does not fit, `DataError` when shards are damaged or `state` belongs to other data; an error of
    the thread is raised by the next `next`. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        rank: int,
        world_size: int,
        state: LoaderState | None = None,
        skipped: Iterable[Interval] = (),
    ) -> None:
        check_world(config, world_size)
        check_vocabulary(config, manifest)
        if not manifest.facts.train.blocks:
            raise DataError(f"{manifest.path}: the split train is empty; build the shards again")
        self._config = config
        self._skips = Skips([*config.data.skip_steps, *skipped])
        streams, layout = stream_count(config), layout_of(config, manifest)
        mine = streams_of_rank(streams, rank, world_size)
        self.state = _own_state(state, layout, mine, streams)
        order = BlockOrder(manifest.facts.train.blocks, streams, config.train.seed)
        source = RowSource(config, manifest, TRAIN)
        self._cursors = {s: _StreamCursor(s, self.state.streams[s], order, source) for s in mine}
        self._queue: queue.Queue[tuple[Step, LoaderState] | BaseException | None] = queue.Queue(
            config.data.prefetch_steps
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="electra-dist-loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        step = self.next_unless(lambda: False)
        assert step is not None
        return step

    def next_unless(self, asked_to_end: Callable[[], bool]) -> Step | None:
        """The next step; None as soon as `asked_to_end` says so and no step is ready, however long the data take.

        Raises what `next` raises.
        """
        if self._closed.is_set():
            raise StopIteration
        while True:
            try:
                item = self._queue.get(timeout=_WAIT_SECONDS)
                break
            except queue.Empty:
                if asked_to_end():
                    return None
        if isinstance(item, BaseException):
            self.close()
            raise item
        if item is None:
            self.close()
            raise StopIteration
        step, self.state = item
        return step

    def is_ready(self) -> bool:
        """Whether `next` would not wait: a step is there, or an error, or the end."""
        return not self._queue.empty()

    def close(self) -> None:
        """Stop the thread and wait for it, not for ever: it may be reading from a file system that is gone.

        More calls do nothing.
        """
        self._closed.set()
        self._thread.join(_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        try:
            drawn = self.state.drawn
            for index in range(self.state.step, self._config.train.steps):
                drawn = self._pass_over(drawn)
                if self._closed.is_set():
                    return
                step = self._make(index)
                drawn += 1
                positions = {stream: cursor.position for stream, cursor in self._cursors.items()}
                self._put((step, LoaderState(index + 1, self.state.layout, positions, drawn)))
            self._put(None)
        except BaseException as error:  # whatever it is, the consumer raises it
            self._put(error)

    def _put(self, item: tuple[Step, LoaderState] | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def _pass_over(self, data_step: int) -> int:
        """Drop the rows that are skipped from `data_step` on; the step of data that comes next."""
        wanted = self._skips.next_kept(data_step)
        for _ in range(data_step, wanted):
            if self._closed.is_set():
                break
            self._take()
        return wanted

    def _take(self) -> list[KeyedRows]:
        """This rank's rows of the next step of data, in parts."""
        rows_per_stream = self._config.train.global_rows // stream_count(self._config)
        return [part for cursor in self._cursors.values() for part in cursor.take(rows_per_stream)]

    def _make(self, index: int) -> Step:
        rows = join(self._take())
        batches = micro_batches(rows, self._config)
        return Step(
            index=index,
            epoch=next(iter(self._cursors.values())).epochs(),
            micro_batches=tuple(batches),
            masked_count=sum(int(batch.masked_weights.sum(dtype=np.float64)) for batch in batches),
            real_count=int((rows.rows.ends[:, -1]).sum()),
        )


def _own_state(state: LoaderState | None, layout: str, mine: range, streams: int) -> LoaderState:
    """The part of `state` that this rank goes on from, or the start."""
    if state is None:
        return LoaderState(0, layout, {stream: StreamPosition(0, 0) for stream in mine}, drawn=0)
    if state.layout != layout:
        raise DataError(
            "state of the data loader: it belongs to other shards, or to another train.seed, data.streams,"
            " data.row_length or data.max_documents_per_row; go on with the ones that the checkpoint was made with"
        )
    missing = [stream for stream in mine if stream not in state.streams]
    if missing:
        raise DataError(
            f"state of the data loader: it lacks {len(missing)} of {streams} streams; merge all ranks' states"
        )
    return LoaderState(state.step, layout, {stream: state.streams[stream] for stream in mine}, state.drawn)
