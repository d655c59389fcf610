"""Blocks read before they are wanted, so that the latency of a storage hides behind the work.

Whoever knows the order says which blocks come next (`expect`); threads read them. `take` gives a
block that was expected, and waits for it where it is not there yet. What goes wrong in a thread is
raised by `take`, as if the block had been read there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import SimpleQueue

from electra_dist.data.shards.blocks import Block

#: Blocks that are read at once: 16 x 100 blocks/s at a latency of 10 ms.
_THREADS = 16
#: Blocks that are expected at most; more than that are read when they are wanted.
_EXPECTED = 4096


class ReadAhead:
    """Calls `read` in threads; the threads start with the first block that is expected, and end
    with the process.
    """

    def __init__(self, read: Callable[[int], Block]) -> None:
        self._read = read
        # a block, and how often it will still be taken
        self._expected: dict[int, tuple[Future[Block], int]] = {}
        self._queue: SimpleQueue[tuple[int, Future[Block]] | None] = SimpleQueue()
        self._threads = 0

    def expect(self, blocks: Iterable[int]) -> None:
        """Begin to read `blocks`, in this order; one that comes twice is read once and will be
        taken twice.
        """
        for block in blocks:
            if block in self._expected:
                known, times = self._expected[block]
                self._expected[block] = (known, times + 1)
                continue
            if len(self._expected) >= _EXPECTED:
                continue
            future: Future[Block] = Future()
            self._expected[block] = (future, 1)
            self._queue.put((block, future))
            if self._threads < min(_THREADS, len(self._expected)):
                self._start()

    def take(self, block: int) -> Block:
        """The block, which is expected once less; raises what reading it raised."""
        if block not in self._expected:
            return self._read(block)
        future, times = self._expected.pop(block)
        if times > 1:
            self._expected[block] = (future, times - 1)
        return future.result()

    def __del__(self) -> None:
        for _ in range(self._threads):
            self._queue.put(None)

    def _start(self) -> None:
        arguments = (self._read, self._queue)
        self._threads += 1
        thread = threading.Thread(target=_work, args=arguments, daemon=True)
        thread.name = f"electra-dist-read-ahead-{self._threads}"
        thread.start()


def _work(
    read: Callable[[int], Block], queue: SimpleQueue[tuple[int, Future[Block]] | None]
) -> None:
    """Read until nobody is there any more."""
    while True:
        wanted = queue.get()
        if wanted is None:
            return
        block, future = wanted
        try:
            future.set_result(read(block))
        except BaseException as error:  # `take` raises it
            future.set_exception(error)
