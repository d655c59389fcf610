"""Draws what is gathered on a terminal, again and again, until a key ends it; or once.

Comes in: a `Gatherer`. Goes out: frames. What is slow, a network file system or a queue that does
not answer, is waited for in a thread of its own: the view always hears its keys.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from launcher.live.gathering import Gatherer, RunView
from launcher.live.overview import overview_frame
from launcher.live.views import LOG_LINES, Screen, run_frame

#: Lines of a log that are read for a frame that fills a terminal.
_LOG_LINES = 100
#: Longest wait for a key: the clock and a new size of the terminal are drawn after it.
_TICK_SECONDS = 1.0
_KEYS_THAT_END = frozenset("qQ\x03\x04")
#: Terminals without the characters that curves are drawn with, whatever their encoding.
_PLAIN_TERMINALS = frozenset(("linux", "vt100", "vt220"))


def has_unicode(console: Console) -> bool:
    """Whether the terminal shows block and braille characters."""
    return not console.options.ascii_only and os.environ.get("TERM") not in _PLAIN_TERMINALS


def views_of(gatherer: Gatherer) -> tuple[RunView, ...]:
    """All runs, with all of their metrics read."""
    views = gatherer.look(LOG_LINES)
    while gatherer.behind:
        views = gatherer.look(LOG_LINES)
    return views


def frame(views: Sequence[RunView], screen: Screen) -> list[Text]:
    """The lines of a frame: of one run, or of several."""
    clock = f"{datetime.now():%H:%M:%S}"
    if len(views) == 1:
        return run_frame(views[0], screen, clock)
    return overview_frame(views, screen, clock)


def show_once(gatherer: Gatherer, console: Console, *, unicode: bool) -> None:
    """Print one frame."""
    screen = Screen(console.width, None, unicode)
    for line in frame(views_of(gatherer), screen):
        console.print(line, soft_wrap=True)


def show(gatherer: Gatherer, console: Console, every: float, *, unicode: bool) -> None:
    """Draw frames until q or Ctrl-C, each with what is `every` seconds old at most; the last one
    stays on the terminal.
    """
    looking = _Looking(gatherer, every)
    last: Group | None = None
    with (
        _asked_to_end(looking) as wanted,
        _keys() as keys,
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        looking.start()
        while not wanted and looking.error is None:
            views = looking.views
            if views is None:
                last = Group(Text("looking at the runs..."))
            else:
                last = Group(*frame(views, Screen(console.width, console.height, unicode)))
            live.update(last, refresh=True)
            ready, _, _ = select.select([*keys, looking.bell], [], [], _TICK_SECONDS)
            if looking.bell in ready:
                os.read(looking.bell, 1024)
            if any(_ends(descriptor) for descriptor in keys if descriptor in ready):
                break
    if looking.error is not None:
        raise looking.error
    if last is not None:
        console.print(last, soft_wrap=True)


class _Looking(threading.Thread):
    """Looks at the runs in the background.

    views   what it saw last; None before that
    bell    a descriptor that can be read once there is something new
    error   why it ended, if it did
    """

    def __init__(self, gatherer: Gatherer, every: float) -> None:
        super().__init__(name="electra-dist-watch", daemon=True)
        self.views: tuple[RunView, ...] | None = None
        self.error: Exception | None = None
        self.bell, self._rope = os.pipe()
        self._gatherer = gatherer
        self._every = every
        self._never = threading.Event()

    def run(self) -> None:
        try:
            while True:
                self.views = self._gatherer.look(_LOG_LINES)
                self.ring()
                if not self._gatherer.behind:
                    self._never.wait(self._every)
        except Exception as error:
            self.error = error
            self.ring()

    def ring(self) -> None:
        """Have whoever waits for `bell` look around."""
        os.write(self._rope, b".")


@contextlib.contextmanager
def _asked_to_end(looking: _Looking) -> Iterator[list[int]]:
    """The signals that came: the terminal is put in order before they end anything."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        looking.ring()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys() -> Iterator[list[int]]:
    """The descriptor that keys come from, one by one and unseen; none where input is no terminal.

    A view that was stopped and is continued (Ctrl-Z, fg) sets the terminal up again.
    """
    if not sys.stdin.isatty():
        yield []
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def set_up(*_: object) -> None:
        tty.setcbreak(keyboard, termios.TCSANOW)

    continued = signal.signal(signal.SIGCONT, set_up)
    set_up()
    try:
        yield [keyboard]
    finally:
        signal.signal(signal.SIGCONT, continued)
        termios.tcsetattr(keyboard, termios.TCSANOW, before)


def _ends(keyboard: int) -> bool:
    """Whether one of the keys that were pressed ends the view; so does a closed terminal."""
    pressed = os.read(keyboard, 1024)
    return not pressed or bool(_KEYS_THAT_END & set(pressed.decode("utf-8", "replace")))
