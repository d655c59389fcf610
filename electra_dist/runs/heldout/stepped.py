"""Files of a run that are named by their step, `step-00001000.json`: listed, bounded in number, and
gone with the steps that a run has gone back behind.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

_STEP = re.compile(r"^step-(\d{8})\.(json|png)$")


def file_of(folder: Path, step: int, suffix: str = "json") -> Path:
    """Where the file of `step` lies."""
    return folder / f"step-{step:08d}.{suffix}"


def steps_in(folder: Path) -> list[int]:
    """Steps that a file is there of, ascending."""
    return sorted({step for step, _ in _files(folder)})


def keep_newest(folder: Path, count: int) -> None:
    """Remove the files of all but the `count` newest steps."""
    newest = set(steps_in(folder)[-count:])
    _remove(path for step, path in _files(folder) if step not in newest)


def remove_later(folder: Path, step: int) -> None:
    """Remove the files of the steps after `step`, which the run goes on from."""
    _remove(path for later, path in _files(folder) if later > step)


def _files(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = ((_STEP.match(path.name), path) for path in folder.iterdir())
    return [(int(match[1]), path) for match, path in matches if match]


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
