"""Work beside training that nobody waits for too long, and that may fail: last files and lines.

Comes in: a call. Goes out: nothing. The file system may be what hangs.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable

#: For the last files and lines.
LAST_WORDS_SECONDS = 10.0


def in_time(work: Callable[[], object]) -> None:
    """Do it in a thread, and go on when it takes longer than `LAST_WORDS_SECONDS`."""
    thread = threading.Thread(target=quietly, args=(work,), daemon=True)
    thread.start()
    thread.join(LAST_WORDS_SECONDS)


def quietly(work: Callable[[], object]) -> None:
    """Do it; an error is a warning."""
    try:
        work()
    except Exception as error:
        print_line(f"warning: the watchdog could not write: {error}")


def print_line(text: str) -> None:
    """One line on standard error; nothing where that is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
