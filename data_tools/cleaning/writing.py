"""The documents that are left, from the spools of all parts into files of equal size.

The third pass of `data_tools.cleaning.run`. The plan is made from the records and the marks alone,
part by part. A file holds a range of the documents in the order of the input: where it begins and
ends depends on the documents that are kept, not on the parts or the workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydantic

from data_tools.cleaning.lines import Compression, reading_lines, to_text, writing_lines
from data_tools.cleaning.matching import Survivors, marks_path
from data_tools.cleaning.report import Example, Tally
from data_tools.cleaning.screening import Spool
from data_tools.cleaning.work import read_record, write_record
from data_tools.disk import on_disk
from data_tools.filters.kinds import KeyFilter

#: Bounds of the size of a file, in bytes of text: small enough to give all workers of a build
#: something to do, large enough for a file system.
MIN_FILE_BYTES = 16 * 2**20
MAX_FILE_BYTES = 256 * 2**20
_FILES = 64


@dataclass(frozen=True)
class WriteTask:
    """Everything a worker needs to write one file.

    record      where its tallies go when it is written
    first, end  the numbers of its documents in the corpus, dropped ones included
    key_filters those that may have dropped some, in order, and where their marks are
    """

    path: Path
    record: Path
    survivors: Survivors
    first: int
    end: int
    marks_folder: Path
    key_filters: tuple[KeyFilter, ...]
    compression: Compression
    seed: int
    examples: int


@dataclass(frozen=True)
class Kept:
    """What is left over the whole corpus; `tallies` are of the corpus-wide filters.

    ends  the number after the last document of each file
    """

    documents: int
    characters: int
    bytes: int
    tallies: tuple[Tally, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True)
class _Slice:
    """The records of one part, and for each document the filter that drops it: its place among
    the corpus-wide ones, or -1.
    """

    start: int
    records: npt.NDArray[np.void]
    dropped_by: npt.NDArray[np.int8]


def plan_files(
    survivors: Survivors, key_filters: Sequence[KeyFilter], folder: Path, file_bytes: int | None
) -> Kept:
    """Count what is kept, and decide where files end; one part in memory at a time."""
    tallies = tuple(Tally() for _ in key_filters)
    documents = 0
    characters = 0
    size = 0
    for one in _slices(survivors, key_filters, folder):
        _count(one, tallies, key_filters)
        kept = one.records[one.dropped_by < 0]
        documents += len(kept)
        characters += int(kept["characters"].sum())
        size += int(kept["bytes"].sum())
    if file_bytes is None:
        file_bytes = max(MIN_FILE_BYTES, min(MAX_FILE_BYTES, size // _FILES))
    ends = _ends(survivors, key_filters, folder, file_bytes)
    return Kept(documents, characters, size, tallies, ends)


def _count(one: _Slice, tallies: Sequence[Tally], filters: Sequence[KeyFilter]) -> None:
    characters = one.records["characters"]
    left = np.ones(len(characters), dtype=bool)
    for place, (tally, applied) in enumerate(zip(tallies, filters, strict=True)):
        dropped = one.dropped_by == place
        tally.documents += int(left.sum())
        tally.characters += int(characters[left].sum())
        tally.dropped_documents += int(dropped.sum())
        tally.dropped_characters += int(characters[dropped].sum())
        if dropped.any():
            tally.reasons[applied.reason] += int(dropped.sum())
        left &= ~dropped


def _ends(
    survivors: Survivors, key_filters: Sequence[KeyFilter], folder: Path, file_bytes: int
) -> tuple[int, ...]:
    """The number after the last document of each file: a file is full with the document that
    reaches its share of the bytes. Every file has a document that is kept.
    """
    ends: list[int] = []
    before = 0
    in_files = 0
    for one in _slices(survivors, key_filters, folder):
        sizes = np.where(one.dropped_by < 0, one.records["bytes"], 0).astype(np.int64)
        sums = before + np.cumsum(sizes)
        full = sums // file_bytes
        full_before = np.concatenate([[before // file_bytes], full[:-1]])
        for place in np.flatnonzero(full > full_before).tolist():
            ends.append(one.start + place + 1)
            in_files = int(sums[place])
        if len(sums):
            before = int(sums[-1])
    if before > in_files:
        return (*ends, survivors.documents)
    return (*ends[:-1], survivors.documents)  # after the last full file, all were dropped


def _slices(
    survivors: Survivors, key_filters: Sequence[KeyFilter], folder: Path
) -> Iterator[_Slice]:
    """Part by part, in order."""
    marks = _open_marks(key_filters, folder)
    ranges = itertools.pairwise(survivors.starts)
    for spool, (start, end) in zip(survivors.spools, ranges, strict=True):
        records = np.load(spool.records_path, allow_pickle=False)
        yield _Slice(start, records, _dropped_by(marks, start, end))


def _open_marks(key_filters: Sequence[KeyFilter], folder: Path) -> list[npt.NDArray[np.uint8]]:
    return [
        np.memmap(marks_path(folder, one.name), dtype=np.uint8, mode="r") for one in key_filters
    ]


def _dropped_by(
    marks: Sequence[npt.NDArray[np.uint8]], start: int, end: int
) -> npt.NDArray[np.int8]:
    """For documents [start, end), the first filter that marked them, or -1."""
    found = np.full(end - start, -1, dtype=np.int8)
    for place in reversed(range(len(marks))):
        found[marks[place][start:end] == 1] = place
    return found


_TALLIES = pydantic.TypeAdapter(tuple[Tally, ...])


def written_already(task: WriteTask) -> tuple[Tally, ...] | None:
    """What `write_file` returned, where the file is there."""
    return read_record(task.record, _TALLIES)


def write_file(task: WriteTask) -> tuple[Tally, ...]:
    """Write one file; returns examples of what the corpus-wide filters dropped, in tallies."""
    with on_disk(task.path.parent):
        tallies = _write(task)
        write_record(task.record, _TALLIES, tallies)
    return tallies


def _write(task: WriteTask) -> tuple[Tally, ...]:
    tallies = tuple(Tally() for _ in task.key_filters)
    dropped_by = _dropped_by(_open_marks(task.key_filters, task.marks_folder), task.first, task.end)
    with writing_lines(task.path, task.compression) as file:
        for number, line in _lines(task):
            place = int(dropped_by[number - task.first])
            if place < 0:
                file.write(line)
            else:
                reason = task.key_filters[place].reason
                example = Example.of(to_text(line), reason, task.seed, number)
                tallies[place].add_example(example, task.examples)
    return tallies


def _lines(task: WriteTask) -> Iterator[tuple[int, bytes]]:
    """(number in the corpus, line) of every document of the file."""
    for spool, (start, end) in _spools(task.survivors):
        if start < task.end and end > task.first:
            with reading_lines(spool.lines_path, task.compression) as lines:
                low = max(task.first - start, 0)
                high = min(task.end, end) - start
                yield from enumerate(itertools.islice(lines, low, high), start + low)


def _spools(survivors: Survivors) -> Iterator[tuple[Spool, tuple[int, int]]]:
    return zip(survivors.spools, itertools.pairwise(survivors.starts), strict=True)


def text_of(survivors: Survivors, number: int, compression: Compression) -> str:
    """The document that is `number` in the corpus."""
    for spool, (start, end) in _spools(survivors):
        if start <= number < end:
            with reading_lines(spool.lines_path, compression) as lines:
                return to_text(next(itertools.islice(lines, number - start, None)))
    raise IndexError(number)
