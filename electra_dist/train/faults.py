"""Interruptions: signals become a request that the ranks act on together at a step boundary (DESIGN
D8).

SIGINT (Ctrl-C), SIGTERM (preemption), SIGHUP (the terminal is closed) and SIGUSR1 (the job script,
ahead of the time limit) set a flag; the trainer tells all ranks before every step, saves after it
when any of them has it, and exits with `EXIT_UNFINISHED`: at the latest two steps later. A second
Ctrl-C ends the process at once. Under nohup SIGHUP stays ignored.

What came before, while the libraries were imported, is taken over from
`electra_dist.parallel.early`.
"""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

from electra_dist.parallel import early
from electra_dist.parallel.collectives import all_reduce_max
from electra_dist.parallel.world import World

_NOTHING = 0
_STOP = 1
_CTRL_C = 2
_open: list[Interruption] = []


class Interruption:
    """Context manager: while it is open, the signals above only set `requested`."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._early: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        for number in early.SIGNALS:
            if early.stays_ignored(number):
                continue
            previous = signal.signal(number, self._receive)
            if early.is_listener(previous):
                self._previous[number] = signal.SIG_DFL
            else:
                self._previous[number] = previous
        self._early = early.heard()
        self.requested = self.requested or self._early
        _open.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _open.remove(self)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def is_requested_of_any(self, world: World) -> bool:
        """Whether any rank was asked to stop, before there is anything to save; every rank must
        call this.

        Raises `KeyboardInterrupt` on all ranks when Ctrl-C came while any of them was still being
        imported.
        """
        if self._early == signal.SIGINT:
            mine = _CTRL_C
        elif self.requested:
            mine = _STOP
        else:
            mine = _NOTHING
        asked = all_reduce_max(mine, world)
        if asked == _CTRL_C:
            raise KeyboardInterrupt
        return asked == _STOP

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number)

    def forget(self) -> None:
        """A forked child is no rank: signals end it."""
        for number in self._previous:
            signal.signal(number, signal.SIG_DFL)


def _after_fork() -> None:
    for interruption in _open:
        interruption.forget()


os.register_at_fork(after_in_child=_after_fork)
