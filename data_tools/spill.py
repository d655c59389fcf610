"""Encoded documents on disk between the passes of a build: sorted runs, read by ranges of their
key.

A spill is a pair of files: `NAME.ids` (ids of all its documents, sorted by key, end to end) and
`NAME.index` (one `RECORD` a document). Because a spill is sorted, the documents of any range of
keys lie next to each other in it: one seek and one read a spill, whatever the number of ranges.

A document that is cut into pieces has one record a piece, each with a key of its own. Both files
are written under temporary names, forced to the disk and renamed: a spill is whole or absent.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data_tools.unfinished import DamagedWorkError
from electra_dist.files.writing import whole_file

#: One document or piece: its 128-bit key (`high` first), where its ids start, the hash of its
#: document that decides the split, how many ids there are, and its number in the document.
RECORD = np.dtype(
    [
        ("high", "<u8"),
        ("low", "<u8"),
        ("start", "<u8"),
        ("split", "<u8"),
        ("length", "<u4"),
        ("piece", "<u4"),
    ]
)
#: Ids, and documents, that a writer holds in memory before it spills them.
SPILL_TOKENS = 2**24
SPILL_DOCUMENTS = 2**20
#: Ids that a merge holds in memory, about.
MERGE_TOKENS = 2**24
#: Records of an index that are looked at together.
_RECORDS = 2**20

_Ids = npt.NDArray[Any]
_Records = npt.NDArray[np.void]


@dataclass(frozen=True)
class KeyRange:
    """Range `number` of `count` equal ranges of the key."""

    number: int = 0
    count: int = 1

    @property
    def low(self) -> int:
        """The smallest `high` of a key in it."""
        return self.number * 2**64 // self.count

    @property
    def high(self) -> int:
        """The smallest `high` of a key above it."""
        return (self.number + 1) * 2**64 // self.count

    def within(self, number: int, count: int) -> KeyRange:
        """Range `number` of `count` equal ranges of this one."""
        return KeyRange(self.number * count + number, self.count * count)

    def overlaps(self, other: KeyRange) -> bool:
        """Whether a key can lie in both."""
        return self.low < other.high and other.low < self.high

    def slice_of(self, records: _Records) -> slice:
        """The records of this range; `records` is sorted.

        Looks at a few records only: `numpy.searchsorted` would copy the column of a whole index.
        """
        high = records["high"]

        def place(bound: int) -> int:
            return bisect.bisect_left(range(len(high)), bound, key=lambda at: int(high[at]))

        return slice(place(self.low), place(self.high))


ALL_KEYS = KeyRange()


@dataclass(frozen=True)
class Spill:
    """One sorted run on disk.

    keys    the range that its keys lie in
    splits  of its documents, those whose split hash lies in [first, second) are read; None for all
    """

    stem: Path
    documents: int
    tokens: int
    keys: KeyRange = ALL_KEYS
    splits: tuple[int, int] | None = None

    @property
    def ids_path(self) -> Path:
        return self.stem.with_name(self.stem.name + ".ids")

    @property
    def index_path(self) -> Path:
        return self.stem.with_name(self.stem.name + ".index")

    def bytes(self, token_bytes: int) -> int:
        """What it takes on disk."""
        return self.tokens * token_bytes + self.documents * RECORD.itemsize

    def remove(self) -> None:
        """Delete both files; those that are gone already are no error."""
        self.ids_path.unlink(missing_ok=True)
        self.index_path.unlink(missing_ok=True)


class SpillWriter:
    """Collects documents and writes sorted spills `folder/NAME-0000`, ...; `close` returns them."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._folder = folder
        self._name = name
        self._dtype = dtype
        self._spills: list[Spill] = []
        self._clear()

    def _clear(self) -> None:
        self._keys = bytearray()
        self._splits = array("Q")
        self._lengths = array("I")
        self._pieces = array("I")
        self._ids = bytearray()

    def add(self, key: bytes, ids: _Ids, split: int = 0, piece: int = 0) -> None:
        """Take one document, or piece `piece` of one; `split` is the split hash of the document."""
        self._keys += key
        self._splits.append(split)
        self._lengths.append(len(ids))
        self._pieces.append(piece)
        self._ids += ids.astype(self._dtype, copy=False).tobytes()
        full = len(self._ids) >= SPILL_TOKENS * self._dtype.itemsize
        if full or len(self._lengths) >= SPILL_DOCUMENTS:
            self._write()

    def close(self) -> list[Spill]:
        if self._lengths:
            self._write()
        return self._spills

    def _write(self) -> None:
        records = np.zeros(len(self._lengths), dtype=RECORD)
        keys = np.frombuffer(bytes(self._keys), dtype=">u8").reshape(-1, 2)
        records["high"] = keys[:, 0]
        records["low"] = keys[:, 1]
        records["split"] = self._splits
        records["length"] = self._lengths
        records["piece"] = self._pieces
        records["start"][1:] = np.cumsum(records["length"], dtype=np.uint64)[:-1]
        ids = np.frombuffer(bytes(self._ids), dtype=self._dtype)
        stem = self._folder / f"{self._name}-{len(self._spills):04d}"
        self._clear()
        spill = Spill(stem, len(records), len(ids))
        write_spill(spill, iter([(_sorted(records), ids)]))
        self._spills.append(spill)


def write_spill(spill: Spill, parts: Iterator[tuple[_Records, _Ids]]) -> None:
    """Write the files of `spill` from sorted records and the ids that they point into, part after
    part; the starts are counted anew.
    """
    base = 0
    with (
        whole_file(spill.index_path) as index_path,
        whole_file(spill.ids_path) as ids_path,
        index_path.open("wb") as index_file,
        ids_path.open("wb") as ids_file,
    ):
        for records, ids in parts:
            for start, length in records[["start", "length"]].tolist():
                ids_file.write(ids[start : start + length].data)
            lengths = records["length"].astype(np.uint64)
            placed = records.copy()
            placed["start"] = base + np.cumsum(lengths) - lengths
            base += int(lengths.sum())
            index_file.write(placed.tobytes())


def merge(spills: Sequence[Spill], keys: KeyRange, stem: Path, dtype: np.dtype[Any]) -> Spill:
    """Write one spill at `stem` with the documents of `keys` from all `spills`, in bounded memory.

    Opens each file once, and reads it in steps of `MERGE_TOKENS` of all together; equal keys stay.
    """
    tokens = sum(spill.tokens * spill.keys.count for spill in spills) // keys.count
    count = sum(spill.documents * spill.keys.count for spill in spills) // keys.count
    steps = max(1, -(-tokens // MERGE_TOKENS), -(-count // SPILL_DOCUMENTS))
    documents = 0
    written = 0

    def parts() -> Iterator[tuple[_Records, _Ids]]:
        nonlocal documents, written
        with _opened(spills, keys, dtype) as sources:
            for number in range(steps):
                records, ids = _gather_records(sources, keys.within(number, steps), dtype)
                documents += len(records)
                written += int(records["length"].sum())
                yield records, ids

    write_spill(Spill(stem, 0, 0), parts())
    return Spill(stem, documents, written, keys)


def gather(
    spills: Sequence[Spill], keys: KeyRange, dtype: np.dtype[Any], drop_equal_keys: bool
) -> tuple[list[_Ids], int]:
    """The documents of one key range from all spills, sorted by key,
    and how many with equal keys were dropped (of pieces, the first ones count).
    """
    with _opened(spills, keys, dtype) as sources:
        table, flat = _gather_records(sources, keys, dtype)
    fresh = np.ones(len(table), dtype=bool)
    if drop_equal_keys:
        fresh[1:] = (table["high"][1:] != table["high"][:-1]) | (
            table["low"][1:] != table["low"][:-1]
        )
    documents = [
        flat[start : start + length] for start, length in table[["start", "length"]][fresh].tolist()
    ]
    return documents, int((table["piece"][~fresh] == 0).sum())


def tokens_of_splits(spill: Spill) -> int:
    """Tokens of the documents that are read of `spill`."""
    with _opened([spill], ALL_KEYS, np.dtype("<u2")) as sources:
        chosen = (found for source in sources for found in source.chosen(ALL_KEYS))
        return sum(int(found["length"].sum(dtype=np.int64)) for found in chosen)


@dataclass(frozen=True)
class _Source:
    """A spill whose files are open."""

    spill: Spill
    index: _Records
    ids: BinaryIO
    dtype: np.dtype[Any]

    def chosen(self, keys: KeyRange) -> Iterator[_Records]:
        """Copies of the records that `keys` and the splits ask for, some at a time."""
        inside = keys.slice_of(self.index)
        for start in range(inside.start, inside.stop, _RECORDS):
            found = np.array(self.index[start : min(start + _RECORDS, inside.stop)])
            if self.spill.splits is not None:
                low = found["split"] >= np.uint64(self.spill.splits[0])
                found = found[low & (found["split"] < np.uint64(self.spill.splits[1]))]
            yield found

    def read(self, found: _Records) -> _Ids:
        """Ids of the records `found`, whose starts are changed to those in the result.

        One read where they lie next to each other, or nearly so; else one a document.
        """
        first = int(found["start"][0])
        end = int(found["start"][-1]) + int(found["length"][-1])
        wanted = int(found["length"].sum(dtype=np.int64))
        if end - first <= 2 * wanted:
            found["start"] -= np.uint64(first)
            return self._read(first, end - first)
        read = [self._read(start, length) for start, length in found[["start", "length"]].tolist()]
        lengths = found["length"].astype(np.uint64)
        found["start"] = np.cumsum(lengths) - lengths
        return np.concatenate(read)

    def _read(self, start: int, count: int) -> _Ids:
        self.ids.seek(start * self.dtype.itemsize)
        ids = np.fromfile(self.ids, dtype=self.dtype, count=count)
        if len(ids) != count:
            raise _damaged(self.spill.ids_path)
        return ids


@contextmanager
def _opened(
    spills: Sequence[Spill], keys: KeyRange, dtype: np.dtype[Any]
) -> Iterator[list[_Source]]:
    """The spills that can have keys of `keys`, open."""
    with ExitStack() as stack:
        sources = []
        for spill in spills:
            if not spill.documents or not spill.keys.overlaps(keys):
                continue
            try:
                index = np.memmap(spill.index_path, dtype=RECORD, mode="r")
                ids = stack.enter_context(spill.ids_path.open("rb"))
            except (OSError, ValueError) as error:
                raise _damaged(spill.stem) from error
            if len(index) != spill.documents:
                raise _damaged(spill.index_path)
            sources.append(_Source(spill, index, ids, dtype))
        yield sources


def _gather_records(
    sources: Sequence[_Source], keys: KeyRange, dtype: np.dtype[Any]
) -> tuple[_Records, _Ids]:
    """Sorted records of one key range, and the ids that they point into."""
    records = [np.zeros(0, dtype=RECORD)]
    ids = [np.zeros(0, dtype=dtype)]
    base = 0
    for source in sources:
        found = np.concatenate([records[0], *source.chosen(keys)])
        if not len(found):
            continue
        read = source.read(found)
        found["start"] += np.uint64(base)
        base += len(read)
        records.append(found)
        ids.append(read)
    return _sorted(np.concatenate(records)), np.concatenate(ids)


def _damaged(path: Path) -> DamagedWorkError:
    return DamagedWorkError(
        f"{path}: a file of the unfinished build is gone or cut; give the same command with"
        " `again` to start over"
    )


def _sorted(records: _Records) -> _Records:
    return records[np.lexsort((records["low"], records["high"]))]
