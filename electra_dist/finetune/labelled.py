"""Readers of texts and their labels: tables (.tsv, .csv), JSON lines, and plain text.

    .tsv          header, one example a line, fields apart by tabs and never quoted (as GLUE and SST
                  write them)
    .csv          header, quoted where needed
    .jsonl        one object a line
    .txt          one text a line, no labels

Which columns hold the text, the second text of a pair and the label is the caller's choice. Comes
in: a path. Goes out: `Example`s in the order of the file. Everything is UTF-8.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from electra_dist.errors import DataError, nearest
from electra_dist.files.reading import open_regular

SUFFIXES = (".tsv", ".csv", ".jsonl", ".txt")


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `pair` is None where an example is one text."""

    text: str = "text"
    pair: str | None = None
    label: str = "label"


@dataclass(frozen=True)
class Example:
    """One text or pair of texts; `label` as it is written, None where there is none."""

    text: str
    pair: str | None = None
    label: str | None = None


def read_examples(path: Path, columns: Columns, labelled: bool) -> list[Example]:
    """All examples of a file; with `labelled`, each must have a label, otherwise those that are
    there are kept.

    Raises `DataError` naming file and line: no such file, an unknown suffix, a column that is
    missing, a row with another number of fields than the header, no examples, text that is not
    UTF-8.
    """
    suffix = path.suffix
    if suffix not in SUFFIXES:
        if suffix == ".json":
            hint = "; for SQuAD's files there is the `task` question-answering"
        else:
            hint = ""
        raise DataError(
            f"{path}: unknown format; expected a file ending in {', '.join(SUFFIXES)}{hint}"
        )
    if labelled and suffix == ".txt":
        raise DataError(
            f"{path}: plain text has no labels; give a file ending in {', '.join(SUFFIXES[:3])}"
        )
    try:
        with io.TextIOWrapper(
            open_regular(path, follow=True), encoding="utf-8-sig", newline=""
        ) as file:
            examples = list(_examples(path, file, columns, labelled))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 (byte {error.start} of a block): convert it first"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not examples:
        raise DataError(f"{path}: holds no examples")
    return examples


def _examples(path: Path, file: TextIO, columns: Columns, labelled: bool) -> Iterator[Example]:
    if path.suffix == ".txt":
        yield from (Example(text=line.rstrip("\r\n")) for line in file if line.strip())
        return
    if path.suffix == ".jsonl":
        rows = _json_rows(path, file)
    else:
        rows = _table_rows(path, file)
    wanted = [
        columns.text,
        *([columns.pair] if columns.pair else []),
        *([columns.label] if labelled else []),
    ]
    for line, row in rows:
        for name in wanted:
            if row.get(name) is None:
                raise DataError(
                    f"{path}, line {line}: has no {name!r}{nearest(name, row)}; found"
                    f" {', '.join(row) or 'nothing'}. Name the columns with `text`, `pair` and"
                    " `label`"
                )
        label = row.get(columns.label)
        yield Example(
            text=_text(path, line, columns.text, row[columns.text]),
            pair=_text(path, line, columns.pair, row[columns.pair]) if columns.pair else None,
            label=None if label is None else _label(path, line, label),
        )


def _table_rows(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
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


def _text(path: Path, line: int, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}, line {line}: {name} is {value!r}; expected a text")
    return value


def _label(path: Path, line: int, value: Any) -> str:
    """A label as text: 1 and "1" are the same one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{path}, line {line}: the label is {value!r}; expected a text or a number")
    return str(value).strip()
