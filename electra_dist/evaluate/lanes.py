"""Micro-batches side by side on the cores of a CPU, one core each, with results in order.

Comes in: what is to be done with a micro-batch, and the micro-batches. Goes out: the results, in
the order of the micro-batches.

A matrix product that PyTorch spreads over several threads may add its terms in another order than
one thread does, and differ in the last bit. So each micro-batch is computed by one thread, and the
numbers depend neither on the cores of the machine nor on how many ranks share them. A GPU takes one
micro-batch after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Work = TypeVar("Work")
Result = TypeVar("Result")


def in_order(
    do: Callable[[Work], Result], work: Iterable[Work], device: torch.device
) -> Iterator[Result]:
    """`do(one)` of each, in order; on a CPU as many at once as PyTorch may use threads.

    Few more than that are taken from `work` ahead.
    """
    if device.type != "cpu":
        yield from map(do, work)
        return
    lanes = torch.get_num_threads()
    running: deque[Future[Result]] = deque()
    with _single_threaded(lanes) as pool:
        for one in work:
            running.append(pool.submit(do, one))
            if len(running) > lanes:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@contextmanager
def _single_threaded(lanes: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in each of which PyTorch uses that one alone."""
    try:
        with ThreadPoolExecutor(lanes, "evaluate", torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(lanes)  # what threads get that start later
