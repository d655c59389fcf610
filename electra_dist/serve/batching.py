"""The queue between requests and the model: many callers, few threads that answer in batches.

Comes in: the items of each request. Goes out: a future with their predictions, in the same order.

A thread takes up to `batch` items of any requests, as soon as there are so many or the oldest has
waited `wait_seconds`; threads that are free share what waits. A request with more items than that
comes again behind the others, so that a large one never stops the small ones. What fails in a batch
is repeated item by item: an error reaches the request that it belongs to and no other.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from electra_dist.errors import UserError

#: How much the newest batch counts in the rate of answers.
_NEWEST = 0.2


class Answers(Protocol):
    """The model: one prediction per item, in order."""

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]: ...


#: Called on a thread after each batch: items, seconds.
Watcher = Callable[[int, float], None]


class FullError(Exception):
    """So many inputs wait that no more are taken; `seconds` is about when some will be answered."""

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting:,} inputs wait for the model already")
        self.seconds = seconds


class InputError(Exception):
    """The model refuses one input of a request: which one, from 0, and why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


@dataclass(eq=False)
class _Job:
    """The items of one request; `taken` of them went to a model so far, `predictions` by their
    place came back.
    """

    items: Sequence[Any]
    future: Future[list[Any]] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    taken: int = 0
    predictions: dict[int, Any] = field(default_factory=dict)
    ended: bool = False

    @property
    def left(self) -> int:
        return len(self.items) - self.taken


@dataclass(frozen=True)
class _Part:
    """The items of a job from `start` on that go into one batch."""

    job: _Job
    start: int
    items: Sequence[Any]


class Batcher:
    """The queue and its threads, which run until `close`: one for each of `models`, which do not
    share anything that a call changes.
    """

    def __init__(
        self,
        models: Sequence[Answers],
        batch: int,
        wait_seconds: float,
        most_waiting: int,
        watcher: Watcher = lambda items, seconds: None,
    ) -> None:
        self._batch = batch
        self._wait_seconds = wait_seconds
        self._most_waiting = most_waiting
        self._watcher = watcher
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._rate = 0.0  # items per second, of one thread
        self._free = 0  # threads that wait for items
        self._closing = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(model,), name="answers", daemon=True)
            for model in models
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return self._waiting

    @property
    def is_alive(self) -> bool:
        """Whether it takes and answers items."""
        return all(thread.is_alive() for thread in self._threads) and not self._closing

    def submit(self, items: Sequence[Any]) -> Future[list[Any]]:
        """The predictions of at least one item, once they are there.

        The future raises `InputError` where the model refuses an item; whoever cancels it waits for
        nothing more. Raises `FullError` where too many items wait.
        """
        job = _Job(items)
        with self._changed:
            if self._closing:
                raise RuntimeError("the queue is closed")
            if self._waiting + len(items) > self._most_waiting:
                raise FullError(self._waiting, self._seconds_of_queue())
            self._jobs.append(job)
            self._waiting += len(items)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._forget(job))
        return job.future

    def hurry(self) -> None:
        """From now on no item waits for others."""
        with self._changed:
            self._wait_seconds = 0
            self._changed.notify_all()

    def close(self) -> None:
        """Answer what waits, take nothing more, end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, job: _Job) -> None:
        """Take a job that has ended or was given up out of the queue."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= job.left

    def _seconds_of_queue(self) -> int:
        if not self._rate:
            return 1
        return max(1, math.ceil(self._waiting / self._rate / len(self._threads)))

    # --- a thread ---------------------------------------------------------------------------------

    def _run(self, model: Answers) -> None:
        while parts := self._next_parts():
            started = time.monotonic()
            self._answer(model, parts)
            seconds = time.monotonic() - started
            items = sum(len(part.items) for part in parts)
            self._note_rate(items, seconds)
            self._watcher(items, seconds)

    def _note_rate(self, items: int, seconds: float) -> None:
        newest = items / max(seconds, 1e-9)
        if self._rate:
            newest = _NEWEST * newest + (1 - _NEWEST) * self._rate
        self._rate = newest

    def _next_parts(self) -> list[_Part]:
        """Waits for them; empty when the queue is closed and all is taken."""
        with self._changed:
            self._free += 1
            try:
                while True:
                    if self._jobs and self._is_due():
                        return self._take()
                    if self._closing and not self._jobs:
                        return []
                    self._changed.wait(self._patience())
            finally:
                self._free -= 1

    def _is_due(self) -> bool:
        return self._waiting >= self._batch or self._closing or self._patience() == 0

    def _patience(self) -> float | None:
        """Seconds that the oldest job may wait for others; None where there is no job."""
        if not self._jobs:
            return None
        oldest = min(job.arrived for job in self._jobs)
        return max(0.0, oldest + self._wait_seconds - time.monotonic())

    def _take(self) -> list[_Part]:
        parts = []
        # the other free threads get their share
        room = min(self._batch, math.ceil(self._waiting / self._free))
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            items = job.items[job.taken : job.taken + room]
            parts.append(_Part(job, job.taken, items))
            job.taken += len(items)
            room -= len(items)
            if job.left:
                self._jobs.append(job)
            if not room:
                break
        self._waiting -= sum(len(part.items) for part in parts)
        if self._jobs:
            self._changed.notify()
        return parts

    def _answer(self, model: Answers, parts: Sequence[_Part]) -> None:
        together = [item for part in parts for item in part.items]
        try:
            predictions = list(model(together))
        except Exception:
            for part in parts:  # whose it is shows when each item is alone
                self._answer_alone(model, part)
            return
        first = 0
        for part in parts:
            self._finish(part, predictions[first : first + len(part.items)])
            first += len(part.items)

    def _answer_alone(self, model: Answers, part: _Part) -> None:
        predictions: list[Any] = []
        for number, item in enumerate(part.items):
            try:
                predictions += model([item])
            except UserError as error:
                reason = str(error).removeprefix("text 1: ")  # it is the only one here
                self._fail(part.job, InputError(part.start + number, reason))
                return
            except Exception as error:
                self._fail(part.job, error)
                return
        self._finish(part, predictions)

    def _finish(self, part: _Part, predictions: list[Any]) -> None:
        job = part.job
        with self._changed:
            job.predictions.update(enumerate(predictions, part.start))
            if len(job.predictions) < len(job.items) or not self._ends(job):
                return
        job.future.set_result([job.predictions[index] for index in range(len(job.items))])

    def _fail(self, job: _Job, error: Exception) -> None:
        with self._changed:
            if not self._ends(job):
                return
        job.future.set_exception(error)

    def _ends(self, job: _Job) -> bool:
        """Whether its future still waits, once per job; the caller holds the lock."""
        if job.ended:
            return False
        job.ended = True
        return job.future.set_running_or_notify_cancel()
