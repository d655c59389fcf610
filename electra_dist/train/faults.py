"""Interruptions: signals become a request that the ranks act on together at a step boundary (DESIGN D8).

SIGINT (Ctrl-C), SIGTERM (preemption) and SIGUSR1 (the job script, ahead of the time limit) set a flag; the trainer
asks all ranks at every step boundary, saves when any of them has it, and exits with `EXIT_UNFINISHED`. A second
Ctrl-C ends the process at once.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interruption:
    """Context manager: while it is open, the signals above only set `requested`."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number)
