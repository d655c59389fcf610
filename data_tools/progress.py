"""How long work reports how far it is: one small callback, and a bar on stderr for those who watch.

The library never prints: it calls a `Progress` with the name of the stage, the units done and the total. The
command line passes `bar()`; everyone else may leave the default, which says nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    """Called from one thread with the work done so far in `stage`; `total` is in the same unit."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """The default `Progress`: says nothing."""


@contextlib.contextmanager
def bar(unit: str = "") -> Iterator[Progress]:
    """A `Progress` that draws one rich progress bar a stage on stderr; with a `unit` also how many of it a second."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([Rate()] if unit else []),
    )
    display = RichProgress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if not tasks:
            display.start()  # not earlier: an error before the work leaves no empty bar
        if stage not in tasks:
            tasks[stage] = display.add_task(stage, total=total)
        display.update(tasks[stage], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            display.stop()
