"""Tasks over worker processes: results in order, and one error that ends the others.

Comes in: a function that can be pickled, and its tasks. Goes out: the result of each task.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from electra_dist.console import Progress
from electra_dist.errors import DataError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def run_tasks(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    workers: int,
    stage: str,
    progress: Progress,
) -> list[_Result]:
    """Results of all tasks, in order, from `workers` processes; the first error ends the others."""
    results = []
    context = get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_start_worker
    ) as pool:
        try:
            for result in pool.map(function, tasks):
                results.append(result)
                progress(stage, len(results), len(tasks))
        except BrokenProcessPool as error:
            raise DataError(
                f"{stage}: a worker process died; if memory ran out, use fewer `workers` than"
                f" {workers}; a script that calls this needs `if __name__ == '__main__':`"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return results


def _start_worker() -> None:
    """One core a worker; and no torch, which webdataset would import where it is installed:
    2 s and 250 MB each.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
