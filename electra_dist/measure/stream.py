"""The stream of one rank, measured: how fast rows are made, how soon the first step is there, and
what a slow storage costs.

Comes in: a folder of shards. Goes out: `StreamFigures`. No torch, no device: the loader's process
is the real one, and training is a wait until the next step is due.

A slow storage is simulated: each read of a block takes so much longer. The figures are of one rank
of `ranks`; the others would do the same at the same time on cores of their own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from electra_dist import config as configuration
from electra_dist.batch import Step
from electra_dist.config import Config
from electra_dist.data.lanes import LaneLayout
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.loading.ring import Ring, anonymous_memory
from electra_dist.data.packing import pack_block
from electra_dist.data.rows import KeyedRows, micro_batches
from electra_dist.data.shards.manifest import TRAIN, Manifest
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.data.streams import LoaderState
from electra_dist.errors import UserError

Phase = Literal["reading", "packing", "masking", "copying"]
Bottleneck = Literal["reading", "packing", "masking", "copying", "storage latency"]
#: Rows of a step on each rank, and of a micro-batch.
_ROWS = 256
_MICRO_ROWS = 32
#: Canonical streams that all ranks share, where there are fewer ranks.
_STREAMS = 256
#: Steps before anything is timed: the first blocks of all streams are read for them.
_WARM = 3
#: Blocks that the phases are timed on, at most.
_BLOCKS = 48
#: A slow storage is a bottleneck where it costs this share of the time above twice what is waited
#: without it: the other processes of the machine are in both.
_STALL = 0.01


@dataclass(frozen=True)
class WaitFigures:
    """What a rank waits for, with one latency of the storage.

    latency_ms     of each read of a block, simulated
    first_seconds  from nothing to the first step
    seek_seconds   from a saved position to the next step
    stall          share of the time that a rank waits for data, at the rate that is trained
    longest_wait   seconds of the longest wait for one step
    """

    latency_ms: float
    first_seconds: float
    seek_seconds: float
    stall: float
    longest_wait: float


@dataclass(frozen=True)
class StreamFigures:
    """What `measure_stream` found.

    tokens_per_cpu_second  real tokens of the stream for each second of processor time, all threads
    tokens_per_second      the same by the clock, in one process
    nanoseconds            processor time of each phase, for one real token
    bottleneck             what to look at first
    """

    path: str
    ranks: int
    row_length: int
    streams_of_rank: int
    trained_tokens_per_second: float
    tokens_per_cpu_second: float
    tokens_per_second: float
    nanoseconds: dict[Phase, float]
    bottleneck: Bottleneck
    plain: WaitFigures
    slow: WaitFigures

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_stream(
    manifest: Manifest,
    ranks: int = 1,
    row_length: int = 512,
    latency_ms: float = 10.0,
    trained: float = 300_000.0,
    seconds: float = 3.0,
) -> StreamFigures:
    """Measure the stream of rank 0 of `ranks`, which trains `trained` tokens a second.

    Each measurement takes about `seconds`. Raises `UserError` for numbers that cannot be.
    """
    _check(manifest, ranks, latency_ms, trained, seconds)
    plan = stream_plan(manifest, ranks, row_length)
    cpu_rate, rate = _rates(manifest, plan, seconds)
    nanoseconds = _phases(manifest, plan)
    plain = _waits(manifest, plan, 0.0, trained, seconds)
    slow = _waits(manifest, plan, latency_ms, trained, seconds)
    slowest = max(nanoseconds.items(), key=lambda item: item[1])[0]
    bottleneck: Bottleneck = slowest
    if slow.stall > 2 * plain.stall + _STALL:
        bottleneck = "storage latency"
    return StreamFigures(
        path=manifest.place("").rstrip("/"),
        ranks=ranks,
        row_length=row_length,
        streams_of_rank=len(plan.own_streams),
        trained_tokens_per_second=trained,
        tokens_per_cpu_second=cpu_rate,
        tokens_per_second=rate,
        nanoseconds=nanoseconds,
        bottleneck=bottleneck,
        plain=plain,
        slow=slow,
    )


def _check(
    manifest: Manifest, ranks: int, latency_ms: float, trained: float, seconds: float
) -> None:
    if ranks < 1:
        raise UserError(f"`ranks` {ranks}: expected at least 1")
    if not 0 <= latency_ms <= 10_000:
        raise UserError(f"`latency_ms` {latency_ms}: expected milliseconds from 0 to 10,000")
    if not trained > 0:
        raise UserError(f"`trained` {trained}: expected tokens per second, more than 0")
    if not seconds > 0:
        raise UserError(f"`seconds` {seconds}: expected more than 0")
    if not manifest.facts.train.blocks:
        raise UserError(f"{manifest.path}: the split train is empty; there is nothing to measure")


def stream_plan(manifest: Manifest, ranks: int, row_length: int) -> StepPlan:
    """The steps of rank 0 in a run on these shards; they do not end."""
    return StepPlan.of(stream_config(manifest, ranks, row_length), 0, ranks, sys.maxsize)


def stream_config(manifest: Manifest, ranks: int, row_length: int) -> Config:
    """A run on these shards whose ranks each take 256 rows a step from their streams."""
    of_rank = 1
    while 2 * of_rank * ranks <= _STREAMS:
        of_rank = 2 * of_rank
    data: dict[str, Any] = {"shards": str(manifest.path), "row_length": row_length}
    if manifest.remote is not None:
        data["shards"] = manifest.remote.url
        data["cache"] = str(manifest.remote.cache.folder)
        data["cache_bytes"] = manifest.remote.cache.bytes
    return configuration.build(
        {
            "data": {**data, "streams": of_rank * ranks},
            "model": {"preset": "tiny", "max_positions": row_length},
            "train": {
                "steps": 1,
                "global_rows": _ROWS * ranks,
                "micro_rows": _MICRO_ROWS,
            },
            "optim": {"warmup_steps": 0},
        }
    )


# --- the speed of making steps --------------------------------------------------------------------


def _rates(manifest: Manifest, plan: StepPlan, seconds: float) -> tuple[float, float]:
    """Real tokens of a `StepSource`, for a second of processor time and for one of the clock."""
    source = StepSource(plan, RunData.alone(manifest))
    for _ in range(_WARM):
        next(source)
    tokens = 0
    clock = time.perf_counter()
    processor = time.process_time()
    while time.perf_counter() < clock + seconds:
        tokens += next(source).real_count
    processor = time.process_time() - processor
    clock = time.perf_counter() - clock
    return tokens / processor, tokens / clock


def _phases(manifest: Manifest, plan: StepPlan) -> dict[Phase, float]:
    """Nanoseconds of processor time of each phase, for one real token."""
    reader = BlockReader(manifest, TRAIN)
    count = min(len(reader), _BLOCKS)
    reader.read(0)
    blocks, reading = _timed(
        lambda: [reader.read(number * len(reader) // count) for number in range(count)]
    )
    specials = manifest.facts.special_tokens
    length = plan.rows.row_length
    most = plan.rows.max_documents_per_row
    packed, packing = _timed(
        lambda: [pack_block(block, length, most, specials) for block in blocks]
    )
    rows = [KeyedRows(found, np.arange(len(found), dtype=np.uint64)) for found in packed]
    _, masking = _timed(lambda: [micro_batches(found, plan.rows, specials) for found in rows])
    tokens = sum(len(block.tokens) for block in blocks)
    copying, copied = _copying(manifest, plan)
    return {
        "reading": 1e9 * reading / tokens,
        "packing": 1e9 * packing / tokens,
        "masking": 1e9 * masking / tokens,
        "copying": 1e9 * copying / copied,
    }


def _copying(manifest: Manifest, plan: StepPlan) -> tuple[float, int]:
    """Seconds of moving steps through shared memory, and the real tokens in them."""
    data = RunData.alone(manifest)
    source = StepSource(plan, data)
    layout = LaneLayout.of(data, plan.streams, plan.open_blocks)
    ring = Ring(plan, layout, source.state.order)
    memory = anonymous_memory(ring.bytes)
    ring.open(memory, writable=True)
    os.close(memory)
    taken = 0.0
    tokens = 0
    for _ in range(_WARM):
        step = next(source)
        state = source.state
        _, seconds = _timed(partial(_through, ring, step, state))
        taken += seconds
        tokens += step.real_count
    return taken, tokens


def _through(ring: Ring, step: Step, state: LoaderState) -> Step:
    ring.write(0, step, state)
    return ring.read(0)[0]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the processor time of this thread that it took."""
    begin = time.thread_time()
    found = work()
    return found, time.thread_time() - begin


# --- waiting --------------------------------------------------------------------------------------


def _waits(
    manifest: Manifest, plan: StepPlan, latency_ms: float, trained: float, seconds: float
) -> WaitFigures:
    slow = RunData.alone(replace(manifest, latency_seconds=latency_ms / 1000))
    every = _ROWS * plan.rows.row_length / trained
    begin = time.perf_counter()
    with TrainLoader(plan, slow) as loader:
        next(loader)
        first = time.perf_counter() - begin
        stall, longest = _stall(loader, every, seconds)
        state = loader.state
    begin = time.perf_counter()
    with TrainLoader(plan, slow, state) as loader:
        next(loader)
        seek = time.perf_counter() - begin
    return WaitFigures(latency_ms, first, seek, stall, longest)


def _stall(loader: TrainLoader, every: float, seconds: float) -> tuple[float, float]:
    """Share of the time that is waited for steps, one of which is due `every` so many seconds;
    and the longest wait.
    """
    waited = 0.0
    longest = 0.0
    begin = time.perf_counter()
    now = begin
    while now < begin + seconds:
        time.sleep(every)  # where a rank would train
        asked = time.perf_counter()
        next(loader)
        now = time.perf_counter()
        waited += now - asked
        longest = max(longest, now - asked)
    return waited / (now - begin), longest
