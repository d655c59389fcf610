"""Standard output and error of a command that works: losing them never ends it, and never looks like success.

A pipe whose reader has left (`| head -1`), a terminal that was closed, a log file on a full disk: the text is lost, the
work goes on, and the exit status is that of the work. A command that only prints keeps its streams as they are, and
ends with its reader.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys


class _Lossy(io.FileIO):
    """A file whose writing never fails: what cannot be written is dropped."""

    def write(self, content: object) -> int:
        try:
            return super().write(content) or 0  # type: ignore[arg-type]
        except OSError:
            return memoryview(content).nbytes  # type: ignore[arg-type]


def open_missing_streams() -> None:
    """Put /dev/null where the caller closed 0, 1 or 2, so that no file of the run gets such a number.

    What C libraries print would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def outlive_readers() -> None:
    """Make the standard streams of this process lossy; streams that a test put in their place are left alone."""
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
