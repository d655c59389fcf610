"""What was found, what of it is read, and what is left out and why; by suffix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

HIDDEN = "hidden"
UNKNOWN = "unknown suffix"
EMPTY = "empty"
SPECIAL = "special file"
BROKEN = "broken link"
DESCRIPTION = "description of a dataset"
CACHE = "cache of a dataset"
REPEATED = "read already"
#: Nothing is lost by these.
HARMLESS = (DESCRIPTION, CACHE, REPEATED)

_COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".zip")


@dataclass(frozen=True)
class InputRow:
    """Files of one suffix that share their fate.

    left_out    why they are not read; empty where they are
    bytes       of those whose size is known
    example     the first of them
    """

    suffix: str
    left_out: str
    files: int
    bytes: int
    example: str


@dataclass(frozen=True)
class InputReport:
    """All rows: those that are read come first, then those left out."""

    rows: tuple[InputRow, ...]

    @property
    def read(self) -> tuple[InputRow, ...]:
        """What is read, by suffix."""
        return tuple(row for row in self.rows if not row.left_out)

    @property
    def left_out(self) -> tuple[InputRow, ...]:
        """What is not, by reason and suffix."""
        return tuple(row for row in self.rows if row.left_out)

    @property
    def lost(self) -> tuple[InputRow, ...]:
        """What is left out and might hold text: what `strict` refuses."""
        return tuple(row for row in self.left_out if row.left_out not in HARMLESS)

    def read_line(self) -> str:
        """What is read, in a few words."""
        files = sum(row.files for row in self.read)
        size = sum(row.bytes for row in self.read)
        suffixes = ", ".join(f"{row.files:,} {row.suffix}" for row in self.read)
        text = f"{files:,} {_plural('file', files)}"
        if size:
            text += f", {_size(size)}"
        return f"{text} ({suffixes})"

    def left_out_line(self) -> str:
        """What is left out, in a few words; empty when nothing is."""
        return describe(self.left_out)

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "read": [asdict(row) for row in self.read],
            "left_out": [asdict(row) for row in self.left_out],
        }


def describe(rows: Iterable[InputRow]) -> str:
    """`2 .md (unknown suffix, for example corpus/README.md)`, and so on."""
    return ", ".join(
        f"{row.files:,} {row.suffix} ({row.left_out}, for example {row.example})" for row in rows
    )


def suffix_of(name: str) -> str:
    """What ends a file's name, in small letters, with the packing: `.tar.gz`."""
    path = PurePosixPath(name.lower().lstrip("."))
    suffixes = path.suffixes[-1:]
    if path.suffix in _COMPRESSED:
        suffixes = path.suffixes[-2:]
    return "".join(suffixes) or "no suffix"


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    return word + "s"


def _size(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
