"""Documents of the whole corpus that have a key of an earlier one: found range by range.

The second pass of `data_tools.cleaning.run`, in worker processes. One task has one column of keys
and one range of them, from the spools of all parts. It sorts them; of the documents with equal
keys all but the first are duplicates. No table of the whole corpus is ever in memory: a range is as
small as `RANGE_BYTES` asks for.

What is found is marked in a file with one byte per document. Tasks only ever write the same byte,
so their order does not matter. The duplicates themselves are written before: where they are, the
task was done by an interrupted command, and is only marked again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_tools.cleaning.screening import Spool, sorted_order
from data_tools.cleaning.work import save_array
from data_tools.disk import on_disk
from data_tools.filters.kinds import KeyFilter

#: Keys of one task, about; sorting takes some four times as much.
RANGE_BYTES = 64 * 2**20
#: A duplicate, and the first document that has the key.
PAIR = np.dtype([("document", "<u8"), ("first", "<u8")])


@dataclass(frozen=True)
class Survivors:
    """The spools of all parts, and the number of the first document of each in the corpus;
    `starts` has one entry more, the number of all documents.
    """

    spools: tuple[Spool, ...]
    starts: tuple[int, ...]

    @property
    def documents(self) -> int:
        """How many there are in all."""
        return self.starts[-1]


@dataclass(frozen=True)
class MatchTask:
    """One range of the keys in one column of one filter.

    key_bytes  that it sorts, about
    marks      file with one byte per document, 1 for a duplicate
    pairs      file for the duplicates of this task, each with its first document; there when done
    """

    survivors: Survivors
    name: str
    column: int
    number: int
    ranges: int
    key_bytes: int
    marks: Path
    pairs: Path


def plan_matching(
    filters: Sequence[KeyFilter], survivors: Survivors, folder: Path, range_bytes: int
) -> list[MatchTask]:
    """The tasks for all filters; makes their files of marks, with nothing marked."""
    tasks = []
    for one in filters:
        column_bytes = survivors.documents * (8 * one.key_words + 4)
        ranges = max(1, -(-column_bytes // range_bytes))
        marks = marks_path(folder, one.name)
        with marks.open("wb") as file:
            file.truncate(survivors.documents)
        for column in range(one.columns):
            for number in range(ranges):
                pairs = folder / f"{one.name}-{column:04d}-{number:06d}.pairs.npy"
                tasks.append(
                    MatchTask(
                        survivors=survivors,
                        name=one.name,
                        column=column,
                        number=number,
                        ranges=ranges,
                        key_bytes=column_bytes // ranges,
                        marks=marks,
                        pairs=pairs,
                    )
                )
    return tasks


def marks_path(folder: Path, name: str) -> Path:
    """The file with the marks of the filter `name`."""
    return folder / f"{name}.marks"


def match(task: MatchTask) -> int:
    """Mark the duplicates of one range; returns how many there are."""
    with on_disk(task.pairs.parent):
        pairs = _pairs(task)
        save_array(task.pairs, pairs)
        _mark(task, pairs)
    return len(pairs)


def matched_already(task: MatchTask) -> int | None:
    """What `match` returned, where the range is done; its duplicates are marked again."""
    if not task.pairs.exists():
        return None
    pairs = np.load(task.pairs, allow_pickle=False)
    _mark(task, pairs)
    return len(pairs)


def _mark(task: MatchTask, pairs: npt.NDArray[np.void]) -> None:
    if len(pairs):
        marks = np.memmap(task.marks, dtype=np.uint8, mode="r+")
        marks[np.sort(pairs["document"])] = 1
        marks.flush()


def _pairs(task: MatchTask) -> npt.NDArray[np.void]:
    """The duplicates of one range, as `PAIR`."""
    found = list(_slices(task))
    if not found:
        return np.zeros(0, dtype=PAIR)
    keys = np.concatenate([keys for keys, _ in found])
    documents = np.concatenate([documents for _, documents in found])
    order = sorted_order(keys)  # stable: of equal keys, the earlier document stays first
    keys = keys[order]
    documents = documents[order]

    again = np.zeros(len(keys), dtype=bool)
    again[1:] = (keys[1:] == keys[:-1]).all(axis=1)
    firsts = documents[np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))]
    pairs = np.zeros(int(again.sum()), dtype=PAIR)
    pairs["document"] = documents[again]
    pairs["first"] = firsts[again]
    return pairs


def _slices(task: MatchTask) -> Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]]:
    """(keys, numbers in the corpus) of the range, from each part that has any."""
    low = task.number * 2**64 // task.ranges
    high = (task.number + 1) * 2**64 // task.ranges
    for spool, start in zip(task.survivors.spools, task.survivors.starts, strict=False):
        table = np.load(spool.keys_path(task.name), mmap_mode="r", allow_pickle=False)
        column = table[task.column]
        begin = _first_at(column, low)
        end = _first_at(column, high)
        if begin < end:
            part = np.array(column[begin:end])
            yield part["key"], part["document"].astype(np.uint64) + np.uint64(start)


def _first_at(column: npt.NDArray[np.void], key: int) -> int:
    """Where the first key with a leading word of at least `key` is; reads a few records only."""
    leading = column["key"][:, 0]
    return bisect_left(range(len(leading)), key, key=lambda place: int(leading[place]))


def first_like(tasks: Sequence[MatchTask], name: str, documents: Sequence[int]) -> dict[int, int]:
    """The earliest document that each of `documents`, duplicates by the filter `name`, is like."""
    found: dict[int, int] = {}
    wanted = np.array(sorted(documents), dtype=np.uint64)
    for task in tasks:
        if task.name != name or not len(wanted):
            continue
        pairs = np.load(task.pairs, allow_pickle=False)
        for document, first in pairs[np.isin(pairs["document"], wanted)].tolist():
            found[document] = min(first, found.get(document, first))
    return found
