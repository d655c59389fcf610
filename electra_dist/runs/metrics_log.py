"""metrics.jsonl, the record of a run: one JSON object a row, with the step that it belongs to.

In: rows of rank 0. Out: the same rows, to whoever reads a run. A node that crashes leaves blocks of
zeros in a file, a full disk half a row: what is no row is counted and passed over when reading, and
set aside in a file of its own when a run is resumed. No reader holds more than a few MiB of the
file, whatever is in it.

Knows no torch and no numpy: `status` reads it on a login node. The writer is
`electra_dist.tracking.sinks.MetricsFile`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from electra_dist.files.reading import MIB
from electra_dist.files.writing import writing

Row = dict[str, Any]

#: A longer line is no row.
ROW_BYTES = MIB
_ZEROS = re.compile(rb"\0+")


# --- reading --------------------------------------------------------------------------------------


class RowReader:
    """The rows of a metrics file in order, as often as it is iterated; empty where there is no such
    file.

    `broken` is what the last whole iteration has passed over: lines that are no rows, blocks of
    zeros. A last line without its end is left out and not counted: it may be in the middle of being
    written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = 0

    def __iter__(self) -> Iterator[Row]:
        broken = 0
        for piece in _pieces_of(self.path):
            if piece.whole:
                row = parse_row(piece.raw)
            else:
                row = None
            if row is not None:
                yield row
            elif piece.whole:
                broken += 1
        self.broken = broken


def parse_row(line: bytes) -> Row | None:
    """The row of a line, or None where it is none:
    a JSON object with a step that is a whole number.
    """
    try:
        row: object = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    step = row.get("step")
    if isinstance(step, int) and not isinstance(step, bool) and step >= 0:
        return row
    return None


def is_event(row: Row) -> bool:
    """Whether a row notes something that happened, and holds no metrics."""
    return "event" in row


def rows_in(block: bytes) -> Iterator[Row]:
    """The rows of whole lines."""
    for line in _ZEROS.sub(b"\n", block).split(b"\n"):
        if line:
            row = parse_row(line)
        else:
            row = None
        if row is not None:
            yield row


class _Piece(NamedTuple):
    """A line, or what stands between blocks of zeros; `whole` when it has an end."""

    raw: bytes
    whole: bool


def _pieces_of(path: Path) -> Iterator[_Piece]:
    file = _open_to_read(path)
    if file is not None:
        with file:
            yield from _pieces(file)


def _open_to_read(path: Path) -> IO[bytes] | None:
    """The file; None where there is none,
    or something else that may never answer (a FIFO, a device).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _pieces(file: IO[bytes]) -> Iterator[_Piece]:
    """Every line of a file; a block of zeros is a piece of its own,
    a line above `ROW_BYTES` is cut to that.
    """
    rest = b""
    too_long = False  # the line that `rest` began is too long, and its piece is out
    while chunk := file.read(MIB):
        *lines, rest = (rest + _ZEROS.sub(b"\n\0\n", chunk)).split(b"\n")
        for line in lines:
            if line and not too_long:
                yield _Piece(line[:ROW_BYTES], True)
            too_long = False
        if len(rest) > ROW_BYTES:
            if not too_long:
                yield _Piece(rest[:ROW_BYTES], True)
            rest = b""
            too_long = True
    if rest and not too_long:
        yield _Piece(rest, False)


# --- cutting back ---------------------------------------------------------------------------------


class Cut(NamedTuple):
    """What `cut_back` moved to files beside the metrics:
    rows of later steps, and what was no row.
    """

    later: int
    broken: int


def cut_back(path: Path, step: int) -> Cut:
    """Keep the rows of `path` up to `step`.

    Later rows, and a last line without its end, go to `NAME.after-step-STEP.N.jsonl` beside it;
    what is no row goes to `NAME.broken.N.jsonl`. The file is replaced atomically, after both are on
    disk. Raises `StorageError`.
    """
    found = _count(path, step)
    if not any(found):
        return found
    if found.later:
        later = _unused(path, f"after-step-{step}")
    else:
        later = None
    if found.broken:
        broken = _unused(path, "broken")
    else:
        broken = None
    with writing(path, "what a resumed run keeps of its metrics"):
        _sort(path, step, later, broken)
    return found


def _count(path: Path, step: int) -> Cut:
    later = broken = 0
    for piece in _pieces_of(path):
        row = parse_row(piece.raw)
        if not piece.whole or (row is not None and row["step"] > step):
            later += 1
        elif row is None:
            broken += 1
    return Cut(later, broken)


def _unused(path: Path, kind: str) -> Path:
    """`metrics.KIND.N.jsonl` with the first N that was never used."""
    pattern = re.compile(re.escape(f"{path.stem}.{kind}.") + r"(\d+)\.jsonl")
    used = [
        int(match[1]) for entry in path.parent.iterdir() if (match := pattern.fullmatch(entry.name))
    ]
    return path.with_name(f"{path.stem}.{kind}.{max(used, default=-1) + 1}.jsonl")


def _sort(path: Path, step: int, later: Path | None, broken: Path | None) -> None:
    """Write the three files under temporary names, then give them their names; `path` last."""
    names = {"kept": path, "later": later, "broken": broken}
    temporary = {
        kind: name.with_name(f".{name.name}.{os.getpid()}.tmp")
        for kind, name in names.items()
        if name is not None
    }
    try:
        with contextlib.ExitStack() as stack:
            files = {kind: stack.enter_context(name.open("wb")) for kind, name in temporary.items()}
            for piece in _pieces_of(path):
                files[_kind(piece, step)].write(piece.raw + (b"\n" if piece.whole else b""))
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        for kind in ("later", "broken", "kept"):
            if kind in temporary:
                temporary[kind].replace(names[kind])  # type: ignore[arg-type]
    finally:
        for name in temporary.values():
            with contextlib.suppress(OSError):
                name.unlink()


def _kind(piece: _Piece, step: int) -> str:
    if not piece.whole:
        return "later"
    row = parse_row(piece.raw)
    if row is None:
        return "broken"
    if row["step"] <= step:
        return "kept"
    return "later"
