"""Documents of .jsonl, .json, .csv and .tsv: one each line, element or row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from data_tools.sources.decoding import (
    MAX_RECORD_BYTES,
    decode_line,
    decoded,
    line_number,
    text_lines,
)
from data_tools.sources.opening import open_unpacked
from data_tools.sources.types import ReadOptions, Slice
from data_tools.sources.urls import shown
from electra_dist.errors import DataError


def read_jsonl(part: Slice, options: ReadOptions) -> Iterator[str]:
    """Lines of JSON: objects with the text under a key, or the texts themselves."""
    with open_unpacked(part.name, part.format.packing) as file:
        for offset, line in _lines(part, file):
            text = decode_line(part, offset, line)
            if not text.strip():
                continue
            try:
                content = _parsed(text)
            except (ValueError, RecursionError) as error:
                problem = f"not valid JSON ({error})"
                raise DataError(f"{_line_name(part, offset)}: {problem}") from error
            try:
                yield text_of(content, options.text_key)
            except _NoTextError as error:
                raise DataError(f"{_line_name(part, offset)}: {error}") from error


def _parsed(line: str) -> Any:
    """What a line of JSON holds; raises `ValueError`.

    orjson is strict: it knows no half of a character and no NaN. Where it refuses, the standard
    library decides.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


def _lines(part: Slice, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines that start in the slice."""
    offset = part.start
    if part.start:
        file.seek(part.start - 1)
        offset += _skip_line(file, part.end, part.start - 1) - 1
    while part.end is None or offset < part.end:
        line = file.readline(MAX_RECORD_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_RECORD_BYTES:
            raise DataError(
                f"{_line_name(part, offset)}: longer than {MAX_RECORD_BYTES:,} bytes, the most that"
                " a line of JSON can have; write long documents to .txt, with `documents` file"
            )
        yield offset, line
        offset += len(line)


def _skip_line(file: BinaryIO, end: int | None, offset: int) -> int:
    """Bytes up to the end of this line; of a line that goes on behind `end`, some of them."""
    skipped = 0
    while block := file.readline(2**20):
        skipped += len(block)
        if block.endswith(b"\n") or (end is not None and offset + skipped > end):
            break
    return skipped


def _line_name(part: Slice, offset: int) -> str:
    return f"{shown(part.name)}, line {line_number(part, offset)}"


# --- one record -----------------------------------------------------------------------------------


class _NoTextError(Exception):
    """Why a record holds no text."""


def text_of(content: Any, key: str) -> str:
    """The text of one record: under `key`, or the record itself; null is an empty text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        raise _NoTextError(f"expected a JSON object or a string, found {type(content).__name__}")
    found: Any = content
    if key in content:
        found = content[key]
    else:
        for name in key.split("."):
            if not isinstance(found, dict) or name not in found:
                raise _NoTextError(_missing(content, key))
            found = found[name]
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _NoTextError(
            f'expected the document as a string under "{key}", found a {type(found).__name__} there'
        )
    return found


def column_text(row: Any, key: str, where: str) -> str:
    """The text of a record that lies at `where`; raises `DataError` when it has none."""
    try:
        return text_of(row, key)
    except _NoTextError as error:
        raise DataError(f"{where}: {error}") from error


def _missing(content: dict[str, Any], key: str) -> str:
    keys = sorted(map(str, content))
    return (
        f'expected the document as a string under "{key}", found keys {keys[:12]}; name the right'
        " one as `text_key`"
    )


# --- .json ----------------------------------------------------------------------------------------


def read_json(part: Slice, options: ReadOptions) -> Iterator[str]:
    """The elements of an array, or the values that stand one after the other in a file."""
    import ijson

    name = shown(part.name)
    with open_unpacked(part.name, part.format.packing) as file:
        bounded = _Bounded(file, name)
        first = bounded.skip_space()
        prefix = ""
        if not first:
            return
        if first == b"[":
            prefix = "item"
        values = ijson.items(bounded, prefix, multiple_values=not prefix)
        number = 0
        try:
            for content in values:
                number += 1
                bounded.since_last = 0
                yield text_of(content, options.text_key)
        except ijson.JSONError as error:
            _check_utf8(part)
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{name}, after element {number}: not valid JSON ({reason})") from error
        except _NoTextError as error:
            raise DataError(f"{name}, element {number}: {error}") from error


def _check_utf8(part: Slice) -> None:
    """Raise the error with the place and the advice where the file is no UTF-8."""
    with open_unpacked(part.name, part.format.packing) as file:
        for _ in decoded(file, part):
            pass


class _Bounded:
    """A file for ijson that ends with an error inside of an element that is too large."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._first = b""
        self.since_last = 0

    def skip_space(self) -> bytes:
        """Go to the first character that is no space, and give it."""
        start = self._file.read(3)
        if start == b"\xef\xbb\xbf":
            start = b""
        self._first = start.lstrip()
        while not self._first:
            block = self._file.read(2**16)
            if not block:
                break
            self._first = block.lstrip()
        return self._first[:1]

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        if self._first:
            block = self._first[:size]
            self._first = self._first[size:]
        else:
            block = self._file.read(size)
        self.since_last += len(block)
        if self.since_last > MAX_RECORD_BYTES:
            raise DataError(
                f"{self._name}: an element of more than {MAX_RECORD_BYTES:,} bytes; write one"
                " document per line, to .jsonl"
            )
        return block


# --- .csv, .tsv -----------------------------------------------------------------------------------


def read_table(part: Slice, options: ReadOptions) -> Iterator[str]:
    """A column, by its name in the first row."""
    name = shown(part.name)
    with open_unpacked(part.name, part.format.packing) as file:
        lines = text_lines(decoded(file, part), part)
        csv.field_size_limit(MAX_RECORD_BYTES)
        if part.format.kind == ".tsv":
            rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines, strict=True)
        try:
            header = next(rows, None)
            if header is None:
                return
            column = _column(header, options.text_key, name)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{name}, line {rows.line_num}: found {len(row)} columns, expected"
                        f" {len(header)} as in the first line; quote texts that hold the separator"
                    )
                yield row[column]
        except csv.Error as error:
            raise DataError(f"{name}, line {rows.line_num}: {error}") from error


def _column(header: list[str], key: str, name: str) -> int:
    if header.count(key) != 1:
        raise DataError(
            f"{name}, line 1: found {header.count(key)} columns of the name {key!r} among"
            f" {', '.join(map(repr, header[:12]))}; name the right one as `text_key`"
        )
    return header.index(key)
