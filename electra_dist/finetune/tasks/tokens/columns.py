"""Files of columns, as the shared tasks of CoNLL write them: a word per line, a blank line after
each sentence.

    .conll .bio .iob .iob2   columns apart by tabs or white space; the word in the first, the label
                             in the last, unless other numbers are given
    .conllu                  ten columns apart by tabs; the word in the second, its part of speech
                             in the fourth

Lines of -DOCSTART- are left out. So are comments: lines before a sentence that begin with # and
have not the form of the others. Comes in: the lines. Goes out: the rows of each sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import DataError

CONLLU = ".conllu"
COLUMN_SUFFIXES = (".conll", CONLLU, ".bio", ".iob", ".iob2")
_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")
#: Of CoNLL-U: an id that is no word's, but of several (`3-4`) or of none (`8.1`).
_NO_WORD = re.compile(r"\d+[-.]\d+")


@dataclass(frozen=True)
class Row:
    """A line with its cells; none where it is blank."""

    line: int
    cells: tuple[str, ...]

    @property
    def marked(self) -> bool:
        """Whether it may be a comment."""
        return bool(self.cells) and self.cells[0].startswith("#")

    @property
    def opens_document(self) -> bool:
        return bool(self.cells) and self.cells[0] == _DOCUMENT


@dataclass(frozen=True)
class Table:
    """What a file of columns holds.

    sentences   the rows of each
    word        the column of the words, from 0
    label       that of the labels; None where there is none
    columns     how many there are
    comments    lines that were left out as such
    """

    sentences: list[list[Row]]
    word: int
    label: int | None
    columns: int
    comments: int

    def summary(self) -> str:
        """What was read, in words."""
        words = sum(map(len, self.sentences))
        text = f"{len(self.sentences):,} sentences, {words:,} words in column {self.word + 1}"
        if self.label is not None:
            text += f", labels in column {self.label + 1}"
        text += f" of {self.columns}"
        if self.comments:
            text += f"; {self.comments:,} lines of comments left out"
        return text


def read_table(path: Path, lines: Iterable[str], word: int | None, label: int | None) -> Table:
    """The sentences of a file; `word` and `label` are numbers of columns from 1, None where the
    suffix of `path` says which.

    Raises `DataError` naming file and line for a line with another number of columns than the
    first, and for a column that is not there.
    """
    lines = [line.rstrip("\r\n") for line in lines]
    rows = _rows(lines)
    formed = [row for row in rows if row.cells and not row.marked and not row.opens_document]
    if not formed:
        raise DataError(f"{path}: holds no words")
    columns = len(formed[0].cells)
    word_at, label_at = _places(path, columns, word, label)
    kept = _without_comments(path, rows, formed, label_at)
    for row in kept:
        if row.cells and not row.opens_document and len(row.cells) != columns:
            raise DataError(
                f"{path}, line {row.line}: {len(row.cells)} columns, but line {formed[0].line} has"
                f" {columns}"
            )
    sentences = _sentences(path, kept)
    return Table(sentences, word_at, label_at, columns, comments=len(rows) - len(kept))


def _rows(lines: Sequence[str]) -> list[Row]:
    """Tabs hold the columns apart where the first line of words has one."""
    plain = (line for line in lines if line.strip() and not line.startswith(("#", _DOCUMENT)))
    tabs = "\t" in next(plain, "")
    rows = []
    for number, line in enumerate(lines, 1):
        cells: Sequence[str] = ()
        if line.strip() and tabs:
            cells = line.split("\t")
        elif line.strip(" \t"):
            cells = _BLANKS.split(line.strip(" \t"))
        rows.append(Row(number, tuple(cells)))
    return rows


def _places(
    path: Path, columns: int, word: int | None, label: int | None
) -> tuple[int, int | None]:
    """Where words and labels stand, from 0; no label where the file has no column for it."""
    if path.suffix == CONLLU:
        word = word or 2
        label = label or 4
    word = word or 1
    label = label or columns
    if word > columns:
        raise DataError(f"{path}: has {columns} columns; `text` {word} is not among them")
    if label > columns or label == word:
        return word - 1, None
    return word - 1, label - 1


def _without_comments(
    path: Path, rows: Sequence[Row], formed: Sequence[Row], label: int | None
) -> list[Row]:
    """A line that begins with # is a comment in CoNLL-U; elsewhere only before the first word of a
    sentence, where it has another number of columns than the others, or a label that none has.
    """
    columns = len(formed[0].cells)
    labels: set[str] = set()
    if label is not None:
        labels = {row.cells[label] for row in formed if len(row.cells) == columns}
    kept: list[Row] = []
    for row in rows:
        has_form = len(row.cells) == columns and (label is None or row.cells[label] in labels)
        between = not kept or not kept[-1].cells or kept[-1].opens_document
        if not row.marked or (path.suffix != CONLLU and (has_form or not between)):
            kept.append(row)
    return kept


def _sentences(path: Path, rows: Iterable[Row]) -> list[list[Row]]:
    found: list[list[Row]] = [[]]
    for row in rows:
        if not row.cells or row.opens_document:
            found.append([])
        elif path.suffix != CONLLU or not _NO_WORD.fullmatch(row.cells[0]):
            found[-1].append(row)
    return [sentence for sentence in found if sentence]
