"""Signals that ask a run to end, heard beside training.

Comes in: the numbers of signals, through a descriptor that Python's C code writes to: at once, and
even while the training thread is stuck in C, where Python's handlers do not run. Goes out: when the
run was asked to end, and whether somebody waits in vain for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from electra_dist.parallel import signs

_DEADLY = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
#: From a second Ctrl-C to the end.
_CTRL_C_SECONDS = 5.0
#: From a signal during the start, when nothing is trained yet, to the end.
_START_SECONDS = 10.0


class Interrupts:
    """The signals of this process since `open`."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self._ctrl_c: list[float] = []
        self._descriptor_before: int | None = None

    def open(self, descriptor: int) -> None:
        """Have the numbers written to `descriptor`; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._descriptor_before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)

    def close(self) -> None:
        """As it was before `open`."""
        if self._descriptor_before is not None:
            signal.set_wakeup_fd(self._descriptor_before)

    def hear(self, numbers: bytes, now: float) -> bool:
        """Take in signals; whether the first one that asks to end is among them."""
        is_first = False
        for number in numbers:
            if number in _DEADLY and self.asked_at is None:
                self.asked_at = now
                is_first = True
            if number == signal.SIGINT:
                self._ctrl_c.append(now)
        return is_first

    def has_second_ctrl_c(self, now: float) -> bool:
        """Whether one came, and has waited long enough."""
        return len(self._ctrl_c) > 1 and now - self._ctrl_c[1] > _CTRL_C_SECONDS

    def is_late_in_the_start(self, now: float) -> bool:
        """Whether the start, when nothing is trained yet, goes on for too long after a signal."""
        if self.asked_at is None or now - self.asked_at < _START_SECONDS:
            return False
        doing = signs.doing()
        return doing.last_step is None and doing.phase not in ("checkpoint", "end")


def _forget_wakeup() -> None:
    """A forked child must not tell its parent of signals that are its own."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_wakeup)
