"""Room on the file system, looked for before a checkpoint is written.

Comes in: a folder and the bytes that a checkpoint needs. Goes out: an error where they do not fit,
and the reason of an error in words.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from electra_dist.files.writing import reason

#: Of the file system, on top of a checkpoint,
#: so that the run's small files find room while it is written.
_ROOM_TO_SPARE = 1_000_000


class NoRoomError(OSError):
    """The file system has less room than a checkpoint needs."""


def check_room(folder: Path, checkpoint_bytes: int) -> None:
    """Raise `NoRoomError` before the file system is full: the run's own small files lie there
    too.
    """
    needed = checkpoint_bytes + _ROOM_TO_SPARE
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed:
        raise NoRoomError(
            f"no space left: {needed / 1e6:,.1f} MB needed, {usage.free / 1e6:,.1f} MB free"
        )


def why(error: OSError) -> str:
    """What an error of the file system was, in words."""
    if isinstance(error, NoRoomError):
        return str(error)
    return reason(error)
