"""The processes that descend from one, and their end; needs /proc, and finds none without it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`, whatever its group or session;
    children before their own children.
    """
    children: dict[int, list[int]] = {}
    for child, parent, state in _table():
        if state not in "ZX":
            children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _table() -> list[tuple[int, int, str]]:
    """(process, parent, state) of every process here."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    stat = Path("/proc", entry, "stat").read_text(
                        encoding="utf-8", errors="replace"
                    )
                    state, parent = stat.rsplit(")", 1)[1].split()[:2]
                    found.append((int(entry), int(parent), state))
    return found


def lives(process: int) -> bool:
    """Whether it is there, and more than its remains."""
    try:
        stat = Path("/proc", str(process), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def kill_all(processes: list[int]) -> None:
    """SIGKILL to each of them, stopped ones too."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
