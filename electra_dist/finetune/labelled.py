"""Readers of texts and their labels: tables (.tsv, .csv), JSON lines, and plain text.

    .tsv          header, one example a line, fields apart by tabs and never quoted (as GLUE and SST
                  write them)
    .csv          header, quoted where needed
    .jsonl        one object per line
    .txt          one text per line, blank ones too; no labels

Which columns hold the text, the second text of a pair and the label is the caller's choice. Comes
in: a path. Goes out: `Example`s in the order of the file. Everything is UTF-8.

A label is missing where it is empty, null, or not a number (`nan`, as pandas writes what it lacks).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from electra_dist.console import warn
from electra_dist.errors import DataError, nearest
from electra_dist.files.reading import MIB, open_regular

SUFFIXES = (".tsv", ".csv", ".jsonl", ".txt")
#: What becomes of an example without a label: the file is refused, or it is left out with a
#: warning, or kept.
Unlabelled = Literal["refuse", "drop", "keep"]
#: How a missing label is written, in lower case.
NO_VALUE = ("nan", "<na>")
_LONGEST_FIELD = 64 * MIB
_SHOWN_LINES = 5


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `pair` is None where an example is one text."""

    text: str = "text"
    pair: str | None = None
    label: str = "label"


@dataclass(frozen=True)
class Example:
    """One text or pair of texts; `label` as it is written, None where it is missing, or -1 where
    nobody has labelled it (as GLUE writes); `line` is its last one in the file, from 1.
    """

    text: str
    pair: str | None = None
    label: str | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Files:
    """The labelled files of a fine-tuning; `dev` is held out, None where there is none.

    `clean` names what is done to each text first, as `cleaning.STEPS` does.
    """

    train: Path
    dev: Path | None = None
    columns: Columns = Columns()
    unlabelled: Unlabelled = "refuse"
    clean: tuple[str, ...] = ()


def one_label(path: Path, line: int, value: Any) -> str | None:
    """A label as text, 1 and "1" the same one; None where it is missing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{path}, line {line}: the label is {value!r}; expected a text or a number")
    label = str(value).strip()
    if not label or label.lower() in NO_VALUE:
        return None
    return label


def read_examples(
    path: Path,
    columns: Columns,
    unlabelled: Unlabelled = "keep",
    label_of: Callable[[Path, int, Any], str | None] = one_label,
) -> list[Example]:
    """All examples of a file, in order; `unlabelled` says what becomes of those without a label.

    `label_of` makes the label of what stands in its column: of a path, a line and the value.

    Raises `DataError` naming file and line: no such file, an unknown suffix, a column that is
    missing, a row with another number of fields than the header, a label that is missing, no
    examples, text that is not UTF-8.
    """
    labelled = unlabelled != "keep"
    if labelled and path.suffix == ".txt":
        raise DataError(
            f"{path}: plain text has no labels; give a file ending in {', '.join(SUFFIXES[:3])}"
        )
    examples = list(_examples(path, columns, labelled, label_of))
    if labelled:
        examples = _labelled_ones(path, examples, unlabelled)
    if not any(example.text.strip() or example.pair for example in examples):
        raise DataError(f"{path}: holds no examples")
    return examples


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file one after the other, each with its (last) line, from 1. A line of plain
    text is a row with a `text`, a blank one too.

    Raises `DataError` naming file and line, as `read_examples` does.
    """
    if path.suffix not in SUFFIXES:
        if path.suffix == ".json":
            hint = "; for SQuAD's files there is the `task` question-answering"
        else:
            hint = ""
        raise DataError(
            f"{path}: unknown format; expected a file ending in {', '.join(SUFFIXES)}{hint}"
        )
    try:
        with io.TextIOWrapper(
            open_regular(path, follow=True), encoding="utf-8-sig", newline=""
        ) as file:
            yield from _rows(path, file)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 (byte {error.start} of a block): convert it first"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _rows(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".jsonl":
        yield from _json_rows(path, file)
    elif path.suffix == ".txt":
        for example in examples_of_lines(file):
            yield example.line, {"text": example.text}
    else:
        yield from _table_rows(path, file)


def _labelled_ones(path: Path, examples: list[Example], unlabelled: Unlabelled) -> list[Example]:
    """Those with a label; raises `DataError` where the others are refused."""
    missing = [example.line for example in examples if example.label is None]
    check_missing(path, missing, len(examples), unlabelled)
    return [example for example in examples if example.label is not None]


def check_missing(path: Path, lines: Sequence[int], examples: int, unlabelled: Unlabelled) -> None:
    """Raise `DataError` where `lines` of a file of so many examples have no label and are refused,
    warn where they are left out.
    """
    if not lines or unlabelled == "keep":
        return
    shown = ", ".join(map(str, lines[:_SHOWN_LINES]))
    if len(lines) > _SHOWN_LINES:
        shown += ", ..."
    found = f"{len(lines):,} of {examples:,} examples have no label (line {shown})"
    if unlabelled == "refuse":
        raise DataError(f"{path}: {found}; label them, or leave them out with `drop_unlabelled`")
    warn(f"{path}: {found}; they are left out")


def _examples(
    path: Path,
    columns: Columns,
    labelled: bool,
    label_of: Callable[[Path, int, Any], str | None],
) -> Iterator[Example]:
    for line, row in read_rows(path):
        if path.suffix == ".txt":
            yield Example(row["text"], line=line)
            continue
        text = text_of(path, line, row, columns.text)
        pair = None
        if columns.pair:
            pair = text_of(path, line, row, columns.pair)
        if labelled and columns.label not in row:
            raise _lacks(path, line, row, columns.label)
        yield Example(text, pair, label_of(path, line, row.get(columns.label)), line)


def examples_of_lines(lines: Iterable[str]) -> Iterator[Example]:
    """One example per line, blank ones too, so that answers and lines keep step."""
    for number, line in enumerate(lines, 1):
        yield Example(text=line.rstrip("\r\n"), line=number)


def _table_rows(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    if path.suffix == ".tsv":
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, strict=True)
    try:
        header = next(reader, [])
        for fields in reader:
            if fields and len(fields) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, but the header has"
                    f" {len(header)}: {', '.join(header)}"
                )
            if fields:
                yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: cannot be read as CSV: {error}"
        ) from error


def _json_rows(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {number}: is {type(row).__name__}; expected an object with a text"
            )
        yield number, row


def text_of(path: Path, line: int, row: Mapping[str, Any], name: str) -> str:
    """The text in the column `name`; raises `DataError` where there is none."""
    value = row.get(name)
    if value is None:
        raise _lacks(path, line, row, name)
    if not isinstance(value, str):
        raise DataError(f"{path}, line {line}: {name} is {value!r}; expected a text")
    return value


def _lacks(path: Path, line: int, row: Mapping[str, Any], name: str) -> DataError:
    return DataError(
        f"{path}, line {line}: has no {name!r}{nearest(name, row)}; found"
        f" {', '.join(row) or 'nothing'}. Name the columns with `text`, `pair` and `label`"
    )
