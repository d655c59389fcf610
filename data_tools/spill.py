"""Encoded documents on disk between the two passes of a build: sorted runs, read by ranges of their
key.

A spill is a pair of files: `NAME.ids` (ids of all its documents, sorted by key, end to end) and
`NAME.index.npy` (one record a document). Because a spill is sorted, the documents of any range of
keys lie next to each other in it: one seek and one read a spill, whatever the number of ranges.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: One document: its 128-bit key (`high` first), and where its ids start and how many there are.
RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("start", "<u8"), ("length", "<u8")])
#: Ids that a writer holds in memory before it spills them.
SPILL_TOKENS = 2**24


@dataclass(frozen=True)
class Spill:
    """One sorted run on disk."""

    stem: Path
    documents: int
    tokens: int

    @property
    def ids_path(self) -> Path:
        return self.stem.with_name(self.stem.name + ".ids")

    @property
    def index_path(self) -> Path:
        return self.stem.with_name(self.stem.name + ".index.npy")


class SpillWriter:
    """Collects documents and writes sorted spills `folder/NAME-0000`, ...; `close` returns them."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._folder = folder
        self._name = name
        self._dtype = dtype
        self._keys: list[bytes] = []
        self._ids: list[npt.NDArray[Any]] = []
        self._tokens = 0
        self._spills: list[Spill] = []

    def add(self, key: bytes, ids: npt.NDArray[np.uint32]) -> None:
        self._keys.append(key)
        self._ids.append(ids.astype(self._dtype))
        self._tokens += len(ids)
        if self._tokens >= SPILL_TOKENS:
            self._write()

    def close(self) -> list[Spill]:
        if self._keys:
            self._write()
        return self._spills

    def _write(self) -> None:
        order = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        records = np.zeros(len(order), dtype=RECORD)
        lengths = np.array([len(self._ids[i]) for i in order], dtype=np.uint64)
        records["high"], records["low"] = zip(
            *(struct.unpack(">QQ", self._keys[i]) for i in order), strict=True
        )
        records["length"] = lengths
        records["start"][1:] = np.cumsum(lengths)[:-1]
        spill = Spill(
            self._folder / f"{self._name}-{len(self._spills):04d}", len(order), self._tokens
        )
        with spill.ids_path.open("wb") as file:
            for i in order:
                file.write(self._ids[i].tobytes())
        np.save(spill.index_path, records, allow_pickle=False)
        self._spills.append(spill)
        self._keys = []
        self._ids = []
        self._tokens = 0


@dataclass(frozen=True)
class KeyRange:
    """Range `number` of `count` equal ranges of the key."""

    number: int
    count: int

    def slice_of(self, records: npt.NDArray[np.void]) -> slice:
        """The records of this range; `records` is sorted."""
        low, high = (index * 2**64 // self.count for index in (self.number, self.number + 1))
        first = int(np.searchsorted(records["high"], np.uint64(low), side="left"))
        if high == 2**64:
            return slice(first, len(records))
        return slice(first, int(np.searchsorted(records["high"], np.uint64(high), side="left")))


def gather(
    spills: Sequence[Spill], keys: KeyRange, dtype: np.dtype[Any], drop_equal_keys: bool
) -> tuple[list[npt.NDArray[Any]], int]:
    """The documents of one key range from all spills, sorted by key,
    and how many with equal keys were dropped.
    """
    records = []
    ids = []
    base = 0
    for spill in spills:
        index = np.load(spill.index_path, mmap_mode="r", allow_pickle=False)
        found = np.array(index[keys.slice_of(index)])
        if not len(found):
            continue
        start = int(found["start"][0])
        length = int(found["length"].sum())
        ids.append(
            np.fromfile(spill.ids_path, dtype=dtype, count=length, offset=start * dtype.itemsize)
        )
        found["start"] = found["start"] - np.uint64(start) + np.uint64(base)
        base += length
        records.append(found)
    if not records:
        return [], 0
    table = np.concatenate(records)
    flat = np.concatenate(ids)
    table = table[np.lexsort((table["low"], table["high"]))]
    fresh = np.ones(len(table), dtype=bool)
    if drop_equal_keys:
        fresh[1:] = (table["high"][1:] != table["high"][:-1]) | (
            table["low"][1:] != table["low"][:-1]
        )
    documents = [
        flat[start : start + length] for start, length in table[["start", "length"]][fresh].tolist()
    ]
    return documents, int((~fresh).sum())
