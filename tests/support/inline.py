"""Worker processes played in this one, so that a test can kill or count what they do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import pytest


class InlineWorkers:
    """`data_tools.workers.Workers` without processes; tasks end in a random order."""

    order = random.Random(0)

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def each(
        self, function: Callable[[Any], Any], tasks: Iterable[Any], stage: str
    ) -> Iterator[Any]:
        waiting = list(tasks)
        self.order.shuffle(waiting)
        for task in waiting:
            yield function(task)


def play_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let builds run their tasks in this process."""
    for module in ("shards", "parts", "add"):
        monkeypatch.setattr(f"data_tools.build.{module}.Workers", InlineWorkers)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
