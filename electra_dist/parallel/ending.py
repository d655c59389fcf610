"""How this process ends: an error that is printed once, and the last call.

Comes in: from what opens a process group, the way to end a process that has one. Goes out: the end
of the program, which the command line asks for. Knows no torch: a command that trains nothing ends
as any Python program.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

Leave = Callable[[int], NoReturn]

_leave: Leave | None = None


def end_by(leave: Leave) -> None:
    """From here on `end` ends the process by `leave`, which gets the exit status."""
    global _leave
    _leave = leave


def end(status: int) -> NoReturn:
    """End this process with `status`, as `end_by` asked for it, else by `sys.exit`."""
    if _leave is not None:
        _leave(status)
    sys.exit(status)


def print_once(error: BaseException) -> None:
    """The traceback of an error, now; a second call for the same one prints nothing."""
    if not getattr(error, "_electra_dist_printed", False):
        traceback.print_exception(error)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        error._electra_dist_printed = True  # type: ignore[attr-defined]
