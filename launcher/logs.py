"""The logs of a run: where the newest one lies, and its text, as it grows.

Comes in: a run directory. Goes out: a path, or parts of a text. A log may be another user's and as
long as the disk allows, so only its last part is looked through for lines.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from electra_dist.errors import UserError
from electra_dist.files.reading import MIB, open_regular
from electra_dist.runs.directory import RunDir

_POLL_SECONDS = 0.5
#: Bytes of a log that are read at once, and of its end that are looked through for its last lines.
_LOG_PART = 64 * 1024
_LOG_TAIL = 64 * MIB


def log_file(run: RunDir, rank: int | None = 0) -> Path:
    """The newest log of a rank, or of the batch script when `rank` is None;
    raises `UserError` when there is none.
    """
    if rank is None:
        pattern = re.compile(r"job-[0-9_]+\.log")
        folders = [run.logs, run.path.parent / "logs"]
    else:
        pattern = re.compile(rf"(job-[0-9_]+-)?rank-{rank}\.log")
        folders = [run.logs]
    for folder in folders:  # the script of a sweep logs beside its runs
        if folder.is_dir():
            found = [path for path in folder.glob("*.log") if pattern.fullmatch(path.name)]
        else:
            found = []
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    if rank is None:
        what = "no log of the job script"
    else:
        what = f"no log of rank {rank}"
    if run.logs.is_dir():
        there = sorted(path.name for path in run.logs.glob("*.log"))
    else:
        there = []
    if there:
        hint = f"there are: {', '.join(there[:8])}"
    else:
        hint = "has the run started? see `electra-dist status`"
    if rank and "rank-0.log" in there and not run.jobs.is_dir():
        hint += (
            ". Ranks that were started by hand print where torchrun or srun puts it; rank 0"
            " alone keeps a log here"
        )
    raise UserError(f"{run.logs}: {what}; {hint}")


def newest_log(run: RunDir) -> str | None:
    """The newest log of rank 0, or None where there is none."""
    try:
        return str(log_file(run))
    except UserError:
        return None


def read_log(path: Path, lines: int | None = None, follow: bool = False) -> Iterator[str]:
    """The text of a log, its last `lines` or all of it, in parts;
    with `follow`, what is appended, without an end.
    """
    raw = open_regular(path, follow=True)
    if lines is not None:
        raw.seek(_start_of_last(raw, lines))
    with io.TextIOWrapper(raw, encoding="utf-8", errors="replace") as file:
        while True:
            while text := file.read(_LOG_PART):
                yield text
            if not follow:
                return
            time.sleep(_POLL_SECONDS)


def _start_of_last(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` of a file start; at most `_LOG_TAIL` bytes before its end."""
    end = file.seek(0, os.SEEK_END)
    start = end
    while lines and start > max(0, end - _LOG_TAIL):
        size = min(_LOG_PART, start)
        start = file.seek(start - size)
        part = file.read(size)
        if start + size == end and part.endswith(b"\n"):
            at = len(part) - 1
        else:
            at = len(part)
        while (at := part.rfind(b"\n", 0, at)) >= 0:
            lines -= 1
            if not lines:
                return start + at + 1
    return start
