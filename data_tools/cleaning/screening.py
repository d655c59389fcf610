"""The documents of one part of the input through all filters that look at one document at a time.

The first pass of `data_tools.cleaning.run`, in worker processes. Comes in: a `ScreenTask`. Goes
out, on disk: the documents that are left, as compressed lines; a record of each; and per
corpus-wide filter the keys of each, sorted. The counts of the part are written last: a part that
has them is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydantic

from data_tools.cleaning.lines import Compression, to_line, writing_lines
from data_tools.cleaning.report import Example, Tally
from data_tools.cleaning.work import read_record, save_array, write_record
from data_tools.disk import on_disk
from data_tools.filters.document import Document
from data_tools.filters.kinds import KeyFilter, TextFilter
from data_tools.sources import Part, read_documents

#: A document that is left: the bytes of its line, and its characters.
RECORD = np.dtype([("bytes", "<u8"), ("characters", "<u8")])
#: Where the keys of documents are collected before they become one array.
_KEY_BLOCK = 4096


@dataclass(frozen=True)
class Spool:
    """The files of one part between the passes."""

    folder: Path
    number: int

    @property
    def lines_path(self) -> Path:
        """The documents that are left."""
        return self.folder / f"{self.number:06d}.lines"

    @property
    def records_path(self) -> Path:
        """A `RECORD` of each."""
        return self.folder / f"{self.number:06d}.records.npy"

    @property
    def counts_path(self) -> Path:
        """What `screen` returned for the part."""
        return self.folder / f"{self.number:06d}.json"

    def keys_path(self, name: str) -> Path:
        """The keys that the filter `name` gives them."""
        return self.folder / f"{self.number:06d}.{name}.npy"


@dataclass(frozen=True)
class ScreenTask:
    """Everything a worker needs to screen one part."""

    part: Part
    spool: Spool
    text_filters: tuple[TextFilter, ...]
    key_filters: tuple[KeyFilter, ...]
    compression: Compression
    seed: int
    examples: int


@dataclass(frozen=True)
class Screened:
    """One part, screened.

    documents, characters  that were read
    kept                   documents that are left
    tallies                of the filters that look at one document
    """

    documents: int
    characters: int
    kept: int
    tallies: tuple[Tally, ...]


_SCREENED = pydantic.TypeAdapter(Screened)


def screened_already(task: ScreenTask) -> Screened | None:
    """What `screen` returned, where the part is done."""
    return read_record(task.spool.counts_path, _SCREENED)


def screen(task: ScreenTask) -> Screened:
    """Read the documents of a part, and spool those that are left."""
    with on_disk(task.spool.folder):
        screened = _screen(task)
        write_record(task.spool.counts_path, _SCREENED, screened)
    return screened


def _screen(task: ScreenTask) -> Screened:
    tallies = tuple(Tally() for _ in task.text_filters)
    collectors = [KeyCollector(one) for one in task.key_filters]
    records: list[tuple[int, int]] = []
    documents = 0
    characters = 0
    with writing_lines(task.spool.lines_path, task.compression) as file:
        for text in read_documents(task.part):
            documents += 1
            characters += len(text)
            document = through(task, tallies, Document(text))
            if document is None:
                continue
            line = to_line(document.text)
            file.write(line)
            for collector in collectors:
                collector.add(len(records), document)
            records.append((len(line), len(document.text)))
    save_array(task.spool.records_path, np.array(records, dtype=RECORD))
    for collector in collectors:
        collector.save(task.spool.keys_path(collector.name))
    return Screened(documents, characters, len(records), tallies)


def through(task: ScreenTask, tallies: tuple[Tally, ...], document: Document) -> Document | None:
    """The document after all filters, or None where one drops it."""
    for one, tally in zip(task.text_filters, tallies, strict=True):
        came = len(document.text)
        tally.documents += 1
        tally.characters += came

        written = one.rewrite(document)
        reason = one.why_not(written)
        if written is not document:
            tally.changed_documents += 1
        if reason is not None:
            tally.dropped_documents += 1
            tally.dropped_characters += came
            tally.reasons[reason] += 1
            tally.add_example(Example.of(document.text, reason, task.seed), task.examples)
            return None
        tally.removed_characters += came - len(written.text)
        document = written
    return document


class KeyCollector:
    """The keys that one filter gives the documents of a part."""

    def __init__(self, applied: KeyFilter) -> None:
        self.name = applied.name
        self._filter = applied
        self._shape = (applied.columns, applied.key_words)
        self._documents: list[int] = []
        self._waiting: list[npt.NDArray[np.uint64]] = []
        self._blocks: list[npt.NDArray[np.uint64]] = []

    def add(self, number: int, document: Document) -> None:
        """Take the keys of the document that is `number` among those left in this part."""
        keys = self._filter.keys(document)
        if keys is None:
            return
        self._documents.append(number)
        self._waiting.append(keys)
        if len(self._waiting) == _KEY_BLOCK:
            self._pack()

    def _pack(self) -> None:
        if self._waiting:
            self._blocks.append(np.stack(self._waiting))
            self._waiting = []

    def save(self, path: Path) -> None:
        """Write (columns, documents) of `key_record`, each column sorted by key and document."""
        self._pack()
        columns, words = self._shape
        table = np.zeros((columns, len(self._documents)), dtype=key_record(words))
        numbers = np.array(self._documents, dtype="<u4")
        for column in range(columns):
            keys = np.concatenate(
                [block[:, column] for block in self._blocks]
                or [np.zeros((0, words), dtype=np.uint64)]
            )
            order = sorted_order(keys)
            table[column]["key"] = keys[order]
            table[column]["document"] = numbers[order]
        save_array(path, table)


def key_record(words: int) -> np.dtype[np.void]:
    """One key of one document: (words,) of 64 bits, and the document's number in its part."""
    return np.dtype([("key", "<u8", (words,)), ("document", "<u4")])


def sorted_order(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """The order that sorts (N, words) by the first word, then the next; stable."""
    return np.lexsort(keys.T[::-1])
