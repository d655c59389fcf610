"""Tasks over worker processes: results as they come, and one error that ends the others.

Comes in: a function that can be pickled, and its tasks. Goes out: the result of each task.

However the parent ends, its workers end at once: each waits for the end of a pipe that the parent
alone can write to. They take no notice of Ctrl-C and SIGTERM, which are the parent's business.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self, TypeVar

from electra_dist.console import Progress
from electra_dist.errors import DataError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
#: Tasks of each worker that are taken and not done, at most.
WAITING_TASKS = 2


class WorkerDiedError(DataError):
    """A worker process that was killed, perhaps because memory ran out."""


class Workers:
    """`count` processes that run tasks, for a `with` block; all end with it."""

    def __init__(self, count: int) -> None:
        context = get_context("spawn")
        self.count = count
        self._theirs, self._life = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            count, mp_context=context, initializer=_start_worker, initargs=(self._theirs,)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._life.close()  # ends them in the middle of whatever they do
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._life.close()
        self._theirs.close()

    def each(
        self, function: Callable[[_Task], _Result], tasks: Iterable[_Task], stage: str
    ) -> Iterator[_Result]:
        """The result of each task, in the order in which they end; tasks are taken as needed.

        The first error of a task is raised here. Raises `WorkerDiedError` for a worker that died.
        """
        rest = iter(tasks)
        running: set[Future[_Result]] = set()
        try:
            while True:
                room = self.count * WAITING_TASKS - len(running)
                running |= {self._pool.submit(function, task) for task in islice(rest, room)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise WorkerDiedError(self._death(stage)) from error

    def _death(self, stage: str) -> str:
        if self.count > 1:
            advice = f"use fewer `workers` than {self.count}"
        else:
            advice = "give the command more memory"
        return (
            f"{stage}: a worker process died; if memory ran out, {advice}; a script that calls"
            " this needs `if __name__ == '__main__':`"
        )


def run_tasks(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    workers: int,
    stage: str,
    progress: Progress,
) -> list[_Result]:
    """Results of all tasks, in order, from `workers` processes; the first error ends the others."""
    results: dict[int, _Result] = {}
    numbered = [(function, number, task) for number, task in enumerate(tasks)]
    with Workers(max(1, min(workers, len(tasks)))) as pool:
        for number, result in pool.each(_numbered, numbered, stage):
            results[number] = result
            progress(stage, len(results), len(tasks))
    return [results[number] for number in range(len(tasks))]


def _numbered(task: tuple[Callable[[Any], Any], int, Any]) -> tuple[int, Any]:
    function, number, content = task
    return number, function(content)


def _start_worker(life: Connection) -> None:
    """One core a worker; and no torch, which webdataset would import where it is installed:
    2 s and 250 MB each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]


def _end_with(life: Connection) -> None:
    """End this process when the parent has ended, or wants it to."""
    with contextlib.suppress(EOFError, OSError):
        life.recv_bytes()
    os._exit(0)
