"""Bytes to text: UTF-8 in blocks, with plain line ends, and good advice for what is no UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from data_tools.sources.encodings import advice
from data_tools.sources.opening import open_unpacked
from data_tools.sources.types import Slice
from data_tools.sources.urls import shown
from electra_dist.errors import DataError

BLOCK_BYTES = 2**20
#: A line, a field or a record of a table may be as long as this, so that a worker stays below
#: 500 MB. Text in .txt has no bound.
MAX_RECORD_BYTES = 2**26
BOM = codecs.BOM_UTF8
#: What the advice on an encoding looks at.
_SAMPLE_BYTES = 2**17

_Result = TypeVar("_Result")


def decoded(file: BinaryIO, part: Slice, start: int = 0, end: int | None = None) -> Iterator[str]:
    """The text of bytes [start, end), in blocks; `\\r\\n` and `\\r` are given as `\\n`.

    A byte-order mark at the start of the file is left out. Raises `DataError` for bytes that are
    not UTF-8.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")()
    lines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = start
    while True:
        wanted = BLOCK_BYTES
        if end is not None:
            wanted = min(wanted, end - offset)
        block = file.read(wanted)
        waiting = len(utf8.getstate()[0])
        text = block
        if offset == 0 and block.startswith(BOM):
            text = block[len(BOM) :]
        try:
            plain = utf8.decode(text, final=not block)
        except UnicodeDecodeError as error:
            skipped = len(block) - len(text)
            raise not_utf8(part, offset - waiting + skipped + error.start) from error
        yield lines.decode(plain, final=not block)
        if not block:
            return
        offset += len(block)


def decode_line(part: Slice, offset: int, line: bytes) -> str:
    """One line that starts at `offset`, as text."""
    if offset == 0:
        line = line.removeprefix(BOM)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(part, offset + error.start) from error


def text_lines(blocks: Iterator[str], part: Slice) -> Iterator[str]:
    """Lines with their ends, out of blocks of text with plain line ends."""
    rest = ""
    for block in blocks:
        lines = (rest + block).split("\n")
        rest = lines.pop()
        for line in lines:
            yield line + "\n"
        if len(rest) > MAX_RECORD_BYTES:
            raise DataError(
                f"{shown(part.name)}: a line of more than {MAX_RECORD_BYTES:,} characters; split it"
            )
    if rest:
        yield rest


def not_utf8(part: Slice, offset: int) -> DataError:
    """The error for a byte at `offset` that is not UTF-8."""
    line, start = _with_file(part, lambda file: _line_of(file, offset))
    sample = _with_file(part, lambda file: _read_from(file, 0, _SAMPLE_BYTES))
    low = max(start, offset - _SAMPLE_BYTES)
    around = _with_file(part, lambda file: _read_from(file, low, offset - low + _SAMPLE_BYTES))
    bad = around[offset - low]
    if offset >= len(sample):
        sample = sample[: sample.rfind(b"\n") + 1] + around
    return DataError(
        f"{shown(part.name)}, line {line}, byte {offset}: not UTF-8 (byte 0x{bad:02x});"
        f" {advice(sample)}"
    )


def line_number(part: Slice, offset: int) -> int:
    """Number, from 1, of the line in which byte `offset` lies."""
    return _with_file(part, lambda file: _line_of(file, offset))[0]


def _with_file(part: Slice, use: Callable[[BinaryIO], _Result]) -> _Result:
    with open_unpacked(part.name, part.format.packing) as file:
        return use(file)


def _line_of(file: BinaryIO, offset: int) -> tuple[int, int]:
    """(number, first byte) of the line in which byte `offset` lies."""
    number = 1
    start = 0
    place = 0
    last = b""
    while place < offset:
        block = file.read(min(2**20, offset - place))
        if not block:
            break
        # "\r\n" is one end, in two blocks too
        ends = block.count(b"\n") + block.count(b"\r") - (last + block).count(b"\r\n")
        number += ends
        newest = max(block.rfind(b"\n"), block.rfind(b"\r"))
        if newest >= 0:
            start = place + newest + 1
        place += len(block)
        last = block[-1:]
    return number, start


def _read_from(file: BinaryIO, start: int, count: int) -> bytes:
    """`count` bytes from `start` on, of a file that may only go forwards."""
    while start > 0:
        block = file.read(min(2**20, start))
        if not block:
            break
        start -= len(block)
    return file.read(count)
