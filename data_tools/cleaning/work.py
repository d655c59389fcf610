"""The folder beside the output where an unfinished cleaning is kept.

    .OUT.cleaning/      what every folder of unfinished work has (`data_tools.unfinished`), and
        spools/         pass 1: of each part the documents that are left, and a record
        matches/        pass 2: of each range of keys the duplicates in it
        written/        pass 3: a record of each file
        files/          the files themselves, then the report; renamed to OUT when all are there
        report.json     the report, for a cleaning that only has to be published

A record is written when the files of its task are on the disk: a task with a record is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pydantic

from data_tools.unfinished import DamagedWorkError, Order, Unfinished
from electra_dist.files.reading import MIB, read_bounded
from electra_dist.files.writing import whole_file, write_atomically

_REPORT = "report.json"
_LIMIT = 64 * MIB
_Content = TypeVar("_Content")


@dataclass(frozen=True)
class CleanFolder(Unfinished):
    """The places in it."""

    @classmethod
    def beside(cls, out: Path) -> CleanFolder:
        """That of the output `out`."""
        return cls(out.parent / f".{out.name}.cleaning", "cleaning", (_REPORT,))

    @property
    def spools(self) -> Path:
        return self.path / "spools"

    @property
    def matches(self) -> Path:
        return self.path / "matches"

    @property
    def written(self) -> Path:
        return self.path / "written"

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def report(self) -> Path:
        return self.path / _REPORT

    def make_places(self) -> None:
        """Make the folders that are not there; raises `OSError`."""
        for folder in (self.spools, self.matches, self.written, self.files):
            folder.mkdir(exist_ok=True)

    def is_published(self, out: Path, order: Order) -> bool:
        """Whether `out` is what `order` made, and only this folder was not removed yet."""
        moved = not self.files.exists() and out.is_dir()
        return moved and self.report.exists() and self.is_of(order)


def save_array(path: Path, array: npt.NDArray[np.void]) -> None:
    """Write a .npy file that is whole or absent; raises `OSError`."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_record(path: Path, kind: pydantic.TypeAdapter[_Content], content: _Content) -> None:
    """Write `content` as JSON; raises `OSError`."""
    write_atomically(path, kind.dump_json(content).decode("utf-8") + "\n")


def read_record(path: Path, kind: pydantic.TypeAdapter[_Content]) -> _Content | None:
    """What `write_record` wrote, or None where nothing is there."""
    try:
        return kind.validate_json(read_bounded(path, _LIMIT))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedWorkError(
            f"{path}: a record of the unfinished cleaning is damaged; give the same command with"
            " `again` to start over"
        ) from error
