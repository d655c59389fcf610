"""Which process is it, and does it live? Answered from the kernel's own table, so that a reused
number fools nobody.

A process is known by its place (this machine since its last boot, and the table of processes in
it), its number there, and when it started. One of another place (another machine, a container with
processes of its own) cannot be told from here.
"""

from __future__ import annotations

import os
from pathlib import Path

#: A word that all processes of one launch share, and those of no other one.
LAUNCH_VARIABLE = "ELECTRA_DIST_LAUNCH"


def place() -> str:
    """This machine since its last boot, and the table of processes that we are in;
    empty where the system has none.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def ticks(pid: int) -> int | None:
    """When process `pid` started, in ticks since boot;
    None when there is none, or only its remains.
    """
    try:
        fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rsplit(")", 1)[1]
            .split()
        )
    except (OSError, IndexError):
        return None
    if fields[0] in "ZX":
        return None
    return int(fields[19])


def is_alive(where: str, pid: int, started: int | None) -> bool | None:
    """Whether process `pid` of `where` that started at `started` ticks lives;
    None when it cannot be told from here.
    """
    if not where or started is None or where != place():
        return None
    return ticks(pid) == started
