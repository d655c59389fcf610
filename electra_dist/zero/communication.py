"""Tells the clock of a step what DeepSpeed communicates: all that is wrapped in it for that.

Collectives on the stream that computes (deepspeed 0.19: gradients at stages 0 to 2, weights after
the update) are heard of by themselves. ZeRO-3 gathers and reduces on streams of its own; what
counts there is where the computing stream waits for these: before a layer, and after the backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from electra_dist.zero.clock import StepClock

#: Methods of DeepSpeed's backend (0.19) that train a network.
_COLLECTIVES = (
    "all_gather",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_reduce",
    "all_reduce_coalesced",
    "broadcast",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
)


class _Heard:
    """The clock of the step in hand."""

    clock: StepClock | None = None


@contextmanager
def timing(clock: StepClock) -> Iterator[None]:
    """A step that `clock` times; it is over at the end."""
    _Heard.clock = clock
    try:
        yield
    finally:
        _Heard.clock = None
        clock.leave()


def _communicating() -> AbstractContextManager[None]:
    if _Heard.clock is None:
        return nullcontext()
    return _Heard.clock.communicating()


@functools.cache
def listen() -> None:
    """From now on, DeepSpeed's collectives and the waits for them are timed, in every engine."""
    from deepspeed.comm.torch import TorchBackend
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    for name in _COLLECTIVES:
        setattr(TorchBackend, name, _timed_collective(getattr(TorchBackend, name)))
    for waiting, name in (
        (PartitionedParameterCoordinator, "fetch_sub_module"),
        (DeepSpeedZeroOptimizer_Stage3, "independent_gradient_partition_epilogue"),
    ):
        setattr(waiting, name, _timed(getattr(waiting, name)))


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with _communicating():
            return function(*arguments, **keywords)

    return call


def _timed_collective(function: Callable[..., Any]) -> Callable[..., Any]:
    timed = _timed(function)

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        work = timed(*arguments, **keywords)
        if _Heard.clock is not None and hasattr(work, "wait"):
            return _Waited(work)
        return work

    return call


class _Waited:
    """A collective on its way, whose wait is timed."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self.wait = _timed(work.wait)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)
