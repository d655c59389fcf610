"""Kills a piece of work at any of its changes to the file system, as a power cut or SIGKILL may."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.utime")
_KILLED = 9


def killed_at(event: int, path: Path, act: Callable[[], object], spare: Path | None = None) -> bool:
    """Do it in a process that dies before its change number `event` at or below `path`; whether it
    came so far.

    What lies in `spare` is not counted.
    """
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, _KILLED), "it failed by itself"
        return status == _KILLED
    seen = 0

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = (
            name == "open"
            and isinstance(arguments[2], int)
            and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not writes and name not in _CHANGES:
            return
        places = [str(argument) for argument in arguments[:2]]
        below = any(place.startswith(str(path)) for place in places)
        spared = spare is not None and any(place.startswith(str(spare)) for place in places)
        if below and not spared:
            seen += 1
            if seen > event:
                os._exit(_KILLED)

    sys.addaudithook(watch)
    try:
        act()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
