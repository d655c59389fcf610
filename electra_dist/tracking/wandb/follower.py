"""metrics.jsonl as it grows, and as a resume or a rollback cuts it back;
and what makes two rows the same one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from pathlib import Path
from typing import IO

from electra_dist.runs.metrics import all_metrics
from electra_dist.runs.metrics_log import ROW_BYTES, Row, rows_in

_BLOCK = 4 * ROW_BYTES


def values_of(row: Row) -> dict[str, float | int]:
    """What of a row W&B is sent: numbers; what is undefined (null) has none."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


#: What a row is not known by: of the clock, of the machine, W&B's own.
_NOT_OF_THE_STEP = ("speed/", "memory/", "_")


def key_of(row: Row) -> str:
    """What a row is known by: all its values but those of the clock (`Metric.of_clock`).

    A step that is trained again after a restart gives the same row, and is not sent again. After a
    rollback past a divergence it gives another one, which is.
    """
    values = sorted(
        (name, float(value))
        for name, value in values_of(row).items()
        if name not in _of_the_clock() and not name.startswith(_NOT_OF_THE_STEP)
    )
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


@functools.cache
def _of_the_clock() -> frozenset[str]:
    return frozenset(metric.name for metric in all_metrics() if metric.of_clock)


class Follower:
    """Reads a metrics file on from where it was;
    from the start again when rows were taken out of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._offset = 0
        self.keys: set[str] = set()
        """Of all rows in the file, as far as it was read."""

    def read(self) -> list[tuple[str, Row]]:
        """Rows that were not there at the last call, with their keys, in order;
        some MiB of them, none at the end.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            state = os.fstat(file.fileno())
            if state.st_ino != self._inode or state.st_size < self._offset:
                self._inode = state.st_ino
                self._offset = 0
                self.keys.clear()
            file.seek(self._offset)
            while block := self._whole_lines(file):
                new = self._new(block)
                if new:
                    return new
        return []

    def _whole_lines(self, file: IO[bytes]) -> bytes:
        block = file.read(_BLOCK)
        whole = block[: block.rfind(b"\n") + 1]
        if not whole and len(block) == _BLOCK:
            whole = block  # no row is that long
        self._offset += len(whole)
        file.seek(self._offset)
        return whole

    def _new(self, block: bytes) -> list[tuple[str, Row]]:
        found: list[tuple[str, Row]] = []
        for row in rows_in(block):
            key = key_of(row)
            if key not in self.keys:
                self.keys.add(key)
                found.append((key, row))
        return found
