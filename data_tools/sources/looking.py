"""A look at some documents before the work begins: are they what they are taken for?"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from data_tools.sources.hub import HUB
from data_tools.sources.reading import read_pieces
from data_tools.sources.splitting import split_parts
from data_tools.sources.types import InputFile, Inputs, Part

#: Files and parts that are looked at, and characters of each part.
_MOST = 8
_MOST_CHARACTERS = 2_100_000
LONG_CHARACTERS = 1_000_000

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Look:
    """What was seen of some documents.

    documents           as many as were seen, the last of each part perhaps not to its end
    whole               whether they are all
    median_characters   the median of their lengths, as far as they were seen
    warning             what looks wrong, and what to do; empty when nothing does
    """

    documents: int
    whole: bool
    median_characters: int
    warning: str


def look_at(inputs: Inputs) -> Look:
    """Read the beginning of some parts of some files, evenly spread.

    Left alone is what cannot be read in part: datasets of the hub, and columns that are packed.

    Raises what `read_pieces` raises.
    """
    files = _some([file for file in inputs.files if _is_quick(file)])
    parts = split_parts(replace(inputs, files=tuple(files)))
    chosen = _some(parts)
    whole = len(files) == len(inputs.files) and len(chosen) == len(parts)
    lengths: list[int] = []
    zeros = 0
    for part in chosen:
        seen = _see(part)
        lengths += seen.lengths
        zeros += seen.zeros
        whole = whole and seen.complete
    median = int(statistics.median(lengths or [0]))
    warning = _warning(inputs, len(lengths), whole, median)
    if zeros > sum(lengths) / 10:
        warning = (
            "the text is full of zero characters, as UTF-16 has them; convert it, for example"
            " with `iconv -f utf-16le -t utf-8`"
        )
    return Look(len(lengths), whole, median, warning)


def _is_quick(file: InputFile) -> bool:
    packed_columns = file.format.packing and file.format.kind in (".parquet", ".arrow")
    return file.format != HUB and not packed_columns


def _some(sequence: list[_Item]) -> list[_Item]:
    """At most a few of them, evenly spread."""
    count = min(len(sequence), _MOST)
    return [sequence[number * len(sequence) // count] for number in range(count)]


class _Seen(NamedTuple):
    """The lengths of the first documents of a part, zero characters, and whether they are all."""

    lengths: list[int]
    zeros: int
    complete: bool


def _see(part: Part) -> _Seen:
    lengths: list[int] = []
    zeros = 0
    left = _MOST_CHARACTERS
    for piece in read_pieces(part):
        if left <= 0:
            return _Seen(lengths, zeros, False)
        if piece.number == 0:
            lengths.append(0)
        lengths[-1] += len(piece.text)
        zeros += piece.text.count("\0")
        left -= len(piece.text)
    return _Seen(lengths, zeros, True)


def _warning(inputs: Inputs, documents: int, whole: bool, median: int) -> str:
    advice = "give each its own record"
    if any(file.format.kind == ".txt" for file in inputs.files):
        advice = (
            "`documents` line takes each line for a document, file each file, and blank-line, the"
            " default, what lies between blank lines"
        )
    if whole and documents == 1:
        return f"the whole input is one document; is that meant? {advice}"
    if median > LONG_CHARACTERS:
        return (
            f"half of the documents have more than {LONG_CHARACTERS:,} characters; is that meant?"
            f" {advice}"
        )
    return ""
