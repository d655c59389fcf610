"""Peak of live tensor memory of a block of code, measured, on CPU and on CUDA.

On CPU every allocation and release of PyTorch's allocator is recorded by its profiler, temporaries
of the backward included, and added up; `largest` says which operations hold the memory at the peak.
On CUDA the allocator itself keeps the peak. Memory that PyTorch does not allocate (libraries,
numpy, the interpreter) is not counted.

The profiler sees only threads that run what it records, and a collective's thread may be the one
that drops a tensor last (gloo's, now and then). Each record carries the allocator's own total,
though, which counts every thread while a switch of the C++ library is on: what other threads did
shows as a step of this total between two records.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

#: Operations that `largest` lists, and of each the names that tell it from others.
_LARGEST = 12
_DEPTH = 2


class Held(NamedTuple):
    """What the tensors made by one chain of operations hold at the peak, together."""

    operations: str
    tensors: int
    bytes: int


class _Allocation(NamedTuple):
    """One allocation (`bytes` above 0) or release at `address`, inside `operations`, outermost
    first.

    `total`: what the allocator counts after it, all threads together, in bytes above an unknown
    start.
    """

    time: int
    address: int
    bytes: int
    total: int
    operations: tuple[str, ...]


class TensorMemory:
    """A context manager; after it, `peak_bytes` is the peak above what was alive when it began.

    What was allocated before does not count, and neither does its release. On CPU the recording
    slows the code down by some tens of microseconds an operation and keeps some hundred bytes for
    each: a few steps, not a run.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak_bytes = 0
        self._device = device
        self._baseline = 0
        self._profile: Any = None
        self._at_peak: dict[int, _Allocation] = {}

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._baseline = torch.cuda.memory_allocated(self._device)
        else:
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.__enter__()
            _count_every_thread().value = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._profile is None:
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device) - self._baseline
            return
        _count_every_thread().value = False
        self._profile.__exit__(kind, error, trace)
        if kind is None:
            self.peak_bytes, self._at_peak = _replay(_allocations(self._profile))
        self._profile = None

    def largest(self) -> list[Held]:
        """The operations whose tensors hold most at the peak, by the last two names;
        empty on CUDA.
        """
        sizes: Counter[str] = Counter()
        numbers: Counter[str] = Counter()
        for allocation in self._at_peak.values():
            names = [
                name.rsplit("::", 1)[-1] for name in allocation.operations if "empty" not in name
            ]
            where = " > ".join(names[-_DEPTH:]) or "outside of any operation"
            sizes[where] += allocation.bytes
            numbers[where] += 1
        return [Held(where, numbers[where], size) for where, size in sizes.most_common(_LARGEST)]


def _count_every_thread() -> ctypes.c_bool:
    """The switch of PyTorch's CPU allocator that makes its total count
    threads which no profiler records, too.
    """
    (library,) = (Path(torch.__file__).parent / "lib").glob("libc10.[sd]*")
    return ctypes.c_bool.in_dll(ctypes.CDLL(str(library)), "FLAGS_caffe2_report_cpu_memory_usage")


def _allocations(recorded: Any) -> list[_Allocation]:
    """Every allocation and release on CPU, in the order of time."""
    found = []
    tree = recorded.profiler.kineto_results.experimental_event_tree()
    pending: list[tuple[Any, tuple[str, ...]]] = [(event, ()) for event in tree]
    while pending:
        event, operations = pending.pop()
        if event.tag == _EventType.Allocation:
            fields = event.extra_fields
            if fields.device.type == "cpu":
                allocation = _Allocation(
                    event.start_time_ns,
                    fields.ptr,
                    fields.alloc_size,
                    fields.total_allocated,
                    operations,
                )
                found.append(allocation)
            inside = operations
        else:
            inside = (*operations, event.name)
        pending.extend((child, inside) for child in event.children)
    return sorted(found, key=lambda allocation: allocation.time)


def _replay(allocations: list[_Allocation]) -> tuple[int, dict[int, _Allocation]]:
    """The highest sum of live allocations, and which ones are alive then.

    What another thread released is in the sum no more, but among the live ones until its address is
    used again.
    """
    live: dict[int, _Allocation] = {}
    now = peak = at = 0
    if allocations:
        total = allocations[0].total - allocations[0].bytes
    else:
        total = 0
    for number, allocation in enumerate(allocations):
        unseen = allocation.total - allocation.bytes - total
        total = allocation.total
        now += unseen + _apply(live, allocation)
        if now > peak:
            peak = now
            at = number
    live.clear()
    for allocation in allocations[: at + 1]:
        _apply(live, allocation)
    return peak, live


def _apply(live: dict[int, _Allocation], allocation: _Allocation) -> int:
    """Change `live` by one event; returns the change in bytes.
    The release of an unknown address changes nothing.
    """
    known = live.pop(allocation.address, None)
    if allocation.bytes > 0:
        live[allocation.address] = allocation
        return allocation.bytes
    if known:
        return allocation.bytes
    return 0
