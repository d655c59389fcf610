"""A terminal for tests: a command runs on a pseudo-terminal, and an emulator shows what a person
would see.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte


class Terminal:
    """A command, its keyboard and its screen."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 30,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=1)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self._own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        variables = {**os.environ, "TERM": "xterm", **(environment or {})}
        for name in ("COLUMNS", "LINES"):
            variables.pop(name, None)
        self.process = subprocess.Popen(
            list(command),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=variables,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._theirs = theirs  # kept open: what was written is read to its end

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._own)
        os.close(self._theirs)

    def send(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def lines(self) -> list[str]:
        """What stands on the screen."""
        return [line.rstrip() for line in self.screen.display]

    def scrolled(self) -> list[str]:
        """What has left the screen at its top, and the screen."""
        above = [
            "".join(line[x].data for x in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return above + self.lines()

    def settings(self) -> list[object]:
        """Those of the terminal now."""
        return termios.tcgetattr(self._theirs)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def pump(self, seconds: float) -> bool:
        """Show what is written within `seconds`; whether there was anything."""
        ready, _, _ = select.select([self._own], [], [], seconds)
        if not ready:
            return False
        part = os.read(self._own, 65536)
        self.written += part
        self._stream.feed(part)
        return True

    def until(self, holds: Callable[[list[str]], bool], timeout: float = 60) -> list[str]:
        """The screen once `holds` is true of it."""
        deadline = time.monotonic() + timeout
        while not holds(self.lines()):
            assert time.monotonic() < deadline, "\n".join(self.scrolled())
            if not self.pump(0.1) and self.process.poll() is not None:
                assert holds(self.lines()), "\n".join(self.scrolled())
        return self.lines()

    def wait(self, timeout: float = 60) -> int:
        """The exit status, once all of what was written is shown."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "\n".join(self.scrolled())
            self.pump(0.1)
        while self.pump(0.05):
            pass
        return self.process.wait()
