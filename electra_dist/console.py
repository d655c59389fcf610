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
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol, TextIO, cast


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


_last_put = time.monotonic()


def quiet_seconds() -> float:
    """Since this process started, or last printed a line of its own."""
    return time.monotonic() - _last_put


def put(text: str, *, to_error: bool = False) -> None:
    """One line, at once; lost where nobody can take it, whatever the stream is."""
    global _last_put
    _last_put = time.monotonic()
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


# --- a line that lives ----------------------------------------------------------------------------


#: For a terminal to take the end of a live line.
_CLOSE_SECONDS = 1.0


class LiveLine:
    """The last line of a terminal, drawn again in its place; what is printed scrolls above it.

    `show` may be called from any thread. Made by `live_line`, which leads the standard streams
    through it. A forked process prints past it, and a process in the background draws nothing.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._lock = threading.RLock()  # a signal handler may print in the middle of a print
        self._process = os.getpid()
        self._text = ""
        self._drawn = 0  # characters that stand on the terminal
        self._at_start = True  # of a line: nothing is drawn behind half a line
        self._closed = False

    def show(self, text: str) -> None:
        """Draw this text from now on: ASCII without control characters, cut to the width."""
        signs = text.encode("ascii", "replace").decode("ascii")
        with self._lock:
            self._text = "".join(sign if sign.isprintable() else "?" for sign in signs)
            self._draw()

    @contextlib.contextmanager
    def above(self, *, ends_line: bool) -> Iterator[None]:
        """Around a print to the same terminal; `ends_line` where its text ends with a newline."""
        if os.getpid() != self._process:
            yield
            return
        with self._lock:
            self._erase()
            try:
                yield
            finally:
                self._at_start = ends_line
                self._draw()

    def close(self) -> None:
        """Leave the terminal without the line, for good."""
        # a terminal that takes nothing (Ctrl-S) does not hold up an end
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            self._closed = True
            self._erase()
            self._lock.release()

    def _draw(self) -> None:
        if self._closed or not self._at_start or not self._text or not self._is_in_front():
            return
        line = self._text[: shutil.get_terminal_size().columns - 1]
        self._write("\r" + line.ljust(self._drawn))
        self._drawn = len(line)

    def _erase(self) -> None:
        if self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._terminal.write(text)
            self._terminal.flush()

    def _is_in_front(self) -> bool:
        """Whether the shell's prompt is not there: a process in the background leaves it alone."""
        try:
            return os.tcgetpgrp(self._terminal.fileno()) == os.getpgrp()
        except (OSError, ValueError):
            return True  # not the terminal that this process belongs to: nobody types there


_open_line: LiveLine | None = None


class _Above:
    """A standard stream whose text scrolls above a `LiveLine`."""

    def __init__(self, stream: TextIO, line: LiveLine) -> None:
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        if not text:
            return 0
        with self._line.above(ends_line=text.endswith("\n")):
            written = self._stream.write(text)
            self._stream.flush()
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def live_line() -> Iterator[LiveLine | None]:
    """A live line below what is printed in this block; None where standard output is no terminal,
    or one that cannot write over a line.
    """
    if not _is_terminal(sys.stdout) or os.environ.get("TERM") == "dumb":
        yield None
        return
    global _open_line
    before = (sys.stdout, sys.stderr)
    line = LiveLine(sys.stdout)
    _open_line = line
    sys.stdout = cast(TextIO, _Above(before[0], line))
    if _is_terminal(sys.stderr):
        sys.stderr = cast(TextIO, _Above(before[1], line))
    try:
        yield line
    finally:
        sys.stdout, sys.stderr = before
        _open_line = None
        line.close()


def close_live_line() -> None:
    """For a process that ends at once: leave no line on the terminal."""
    if _open_line is not None:
        _open_line.close()


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


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
