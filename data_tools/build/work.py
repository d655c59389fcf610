"""The folder beside the output where an unfinished build is kept, so that the same command goes on.

.SHARDS.building/       what every folder of unfinished work has (`data_tools.unfinished`), and
    encoded/            step 1: a sorted run and a record for each task
    merged/             step 2: fewer runs
    written/            step 3: the record of each shard
    shards/             the shards themselves; renamed to SHARDS when all are there
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.disk import on_disk
from data_tools.unfinished import Order, Unfinished

_STATS = "stats.json"


@dataclass(frozen=True)
class WorkFolder(Unfinished):
    """The places in it."""

    @classmethod
    def beside(cls, out: Path) -> WorkFolder:
        """That of the output `out`."""
        return cls(out.parent / f".{out.name}.building", "build", (_STATS,))

    @property
    def encoded(self) -> Path:
        return self.path / "encoded"

    @property
    def merged(self) -> Path:
        return self.path / "merged"

    @property
    def written(self) -> Path:
        return self.path / "written"

    @property
    def shards(self) -> Path:
        return self.path / "shards"

    @property
    def stats(self) -> Path:
        """The counts of a build that only has to be published."""
        return self.path / _STATS


@contextlib.contextmanager
def opened(out: Path, order: Order, again: bool) -> Iterator[WorkFolder]:
    """The work folder of `out` for `order`, locked; new, or with what is done already.

    Raises what `Unfinished.opened` raises.
    """
    work = WorkFolder.beside(out)
    with work.opened(order, again):
        with on_disk(work.path):
            for folder in (work.encoded, work.merged, work.written, work.shards):
                if not work.stats.exists():
                    folder.mkdir(exist_ok=True)
            for path in work.path.glob("writing-*"):
                shutil.rmtree(path)
        yield work
