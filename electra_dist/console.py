"""What people see of a command: its streams, lines and warnings, numbers in words, progress.

Losing standard output or error never ends a command that works, and never looks like success.

A pipe whose reader has left (`| head -1`), a terminal that was closed, a log file on a full disk:
the text is lost, the work goes on, and the exit status is that of the work. A command that only
prints keeps its streams as they are, and ends with its reader.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Iterator
from typing import Protocol


class _Lossy(io.FileIO):
    """A file whose writing never fails: what cannot be written is dropped."""

    def write(self, content: object) -> int:
        try:
            return super().write(content) or 0  # type: ignore[arg-type]
        except OSError:
            return memoryview(content).nbytes  # type: ignore[arg-type]


def open_missing_streams() -> None:
    """Put /dev/null where the caller closed 0, 1 or 2, so that no file of the run gets such a
    number.

    What C libraries print would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def outlive_readers() -> None:
    """Make the standard streams of this process lossy;
    streams that a test put in their place are left alone.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lossy(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lossy(sys.stderr, 2)


def _lossy(stream: io.TextIOBase | None, descriptor: int) -> io.TextIOWrapper:
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lossy(descriptor, "w", closefd=False)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def put(text: str, *, to_error: bool = False) -> None:
    """One line, at once; lost where nobody can take it, whatever the stream is."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr if to_error else sys.stdout, flush=True)


def say(text: str) -> None:
    """One line on standard output, at once; lost where nobody takes it any more."""
    put(text)


def warn(text: str) -> None:
    """One line on standard error, at once; lost where nobody takes it any more."""
    put(f"warning: {text}", to_error=True)


def human_count(number: float) -> str:
    """`12345` as `12.3k`."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 1000:
            if not unit:
                return f"{number:.0f}{unit}"
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}P"


def human_bytes(number: float) -> str:
    """`1234567890` as `1.23 GB`, less than one of them as `123 MB`."""
    if number >= 1e9:
        return f"{number / 1e9:,.2f} GB"
    if number >= 1e8:
        return f"{number / 1e6:,.0f} MB"
    return f"{number / 1e6:,.1f} MB"


def human_number(value: float | None) -> str:
    """A figure of a table; `undefined` where there is none."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.3f}"


def human_duration(seconds: float) -> str:
    """In words, in the largest unit of which there are two: `2.5 days`, `3.0 hours`,
    `12 minutes`.
    """
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes"


def human_seconds(seconds: float) -> str:
    """`3725` as `1h02m`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s"


# --- progress -------------------------------------------------------------------------------------
#
# The library never prints how far it is: it calls a `Progress` with the name of the stage, the
# units done and the total. The command line passes `bar()`; everyone else may leave the default,
# which says nothing.


class Progress(Protocol):
    """Called from one thread with the work done so far in `stage`; `total` is in the same unit."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """The default `Progress`: says nothing."""


@contextlib.contextmanager
def bar(unit: str = "") -> Iterator[Progress]:
    """A `Progress` that draws one rich progress bar a stage on stderr;
    with a `unit` also how many of it a second.
    """
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
