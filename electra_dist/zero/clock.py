"""Where the time of a step goes, on one rank, without waiting for the device.

Comes in: `enter` at each part of a step. Goes out: `per_step`, the seconds of each part since the
last call. On a CPU they are those of the clock. On CUDA every mark is an event on the stream that
computes, and two events are compared when the device is past both.

Communication is what no work hides: the time that the computing stream (on a CPU: the thread)
stands still in collectives, or waits for those of another stream. It is taken out of the part that
it happens in, so the parts add up to the step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch

from electra_dist.parallel.world import World

Part = Literal[
    "data_wait",
    "generator_forward",
    "discriminator_forward",
    "discriminator_backward",
    "generator_backward",
    "communication",
    "optimizer",
]
PARTS: tuple[Part, ...] = get_args(Part)

#: Seconds on a CPU, a recorded event on CUDA.
_Mark = Any


class _Span(NamedTuple):
    """Time between two marks; `out_of` is the part that it is to be taken out of."""

    part: Part
    begin: _Mark
    end: _Mark
    out_of: Part | None = None


class StepClock:
    """Times the steps of one rank."""

    def __init__(self, world: World) -> None:
        self._device = world.device
        self._alone = world.world_size == 1
        self._part: Part | None = None
        self._since: _Mark = None
        self._stream: Any = None  # CUDA: the one that computes
        self._communicates = False
        self.clear()

    def clear(self) -> None:
        """Forget the steps since the last `per_step`."""
        self._pending: deque[_Span] = deque()
        self._forget_sums()

    def enter(self, part: Part) -> None:
        """`part` of the step begins, and the one before it ends."""
        now = self._mark()
        self._close(now)
        self._part = part
        self._since = now
        if self._device.type == "cuda":
            self._stream = torch.cuda.current_stream(self._device)

    def leave(self) -> None:
        """The step is over."""
        if self._part is None:
            return
        self._close(self._mark())
        self._part = None
        self._steps += 1
        self._collect()

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """What happens within is a wait of the host for data, between two steps."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds["data_wait"] += time.perf_counter() - start

    @contextmanager
    def communicating(self) -> Iterator[None]:
        """What happens within is communication, where it holds up the work of a step.

        A rank that is alone has nobody to wait for.
        """
        held_up = self._part is not None and not self._alone and self._computes()
        if not held_up or self._communicates:
            yield
            return
        self._communicates = True
        begin = self._mark()
        try:
            yield
        finally:
            self._communicates = False
            self._pending.append(_Span("communication", begin, self._mark(), out_of=self._part))

    def per_step(self) -> dict[Part, float]:
        """Mean seconds of each part in the steps since the last call; NaN where there was none.

        A part that the device is still at counts for the next call.
        """
        self._collect()
        steps = self._steps or float("nan")
        found = {part: seconds / steps for part, seconds in self._seconds.items()}
        self._forget_sums()
        return found

    def _forget_sums(self) -> None:
        self._steps = 0
        self._seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)

    def _computes(self) -> bool:
        """Whether this is the stream that the step computes on."""
        return self._stream is None or torch.cuda.current_stream(self._device) == self._stream

    def _mark(self) -> _Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _close(self, now: _Mark) -> None:
        if self._part is not None:
            self._pending.append(_Span(self._part, self._since, now))

    def _collect(self) -> None:
        """Add up what the device is past, in order; asks it, and waits for nothing."""
        while self._pending and self._is_past(self._pending[0].end):
            span = self._pending.popleft()
            seconds = self._between(span.begin, span.end)
            self._seconds[span.part] += seconds
            if span.out_of is not None:
                self._seconds[span.out_of] -= seconds

    def _is_past(self, mark: _Mark) -> bool:
        return self._device.type != "cuda" or mark.query()

    def _between(self, begin: _Mark, end: _Mark) -> float:
        if self._device.type != "cuda":
            return float(end - begin)
        return float(begin.elapsed_time(end)) / 1e3
