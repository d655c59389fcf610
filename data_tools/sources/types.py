"""What the modules of this room hand to each other, and to the commands: small and frozen, so that
it crosses to worker processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from data_tools.sources.report import InputReport
from data_tools.sources.urls import identified

Documents = Literal["blank-line", "line", "file"]
#: What holds the documents of a .txt apart.
DOCUMENTS: tuple[Documents, ...] = get_args(Documents)

#: Suffixes of formats, and of what they may be packed in.
KINDS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
PACKINGS = (".gz", ".zst", ".bz2", ".xz")
#: What a byte of a file gives in bytes of text, about.
_UNPACKED = {"": 1, ".gz": 3, ".zst": 3, ".bz2": 4, ".xz": 4}
_UNPACKED_COLUMNS = 2
_UNKNOWN_BYTES = 2**26


@dataclass(frozen=True)
class Format:
    """The suffix of a format, such as `.jsonl`, and of its packing, such as `.gz` or nothing."""

    kind: str
    packing: str = ""

    @property
    def suffix(self) -> str:
        """Both, as they end the name of a file."""
        return self.kind + self.packing


def format_of(name: str) -> Format | None:
    """The format that a name ends with, in any letter case, or None."""
    rest = name.lower()
    packing = ""
    for suffix in PACKINGS:
        if rest.endswith(suffix):
            packing = suffix
            rest = rest.removesuffix(suffix)
    for kind in KINDS:
        if rest.endswith(kind):
            return Format(kind, packing)
    return None


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are read.

    documents   what holds the documents of a .txt apart: blank lines, the end of each line, or
                nothing but the end of the file
    text_key    the key or column with the text; `a.b` stands for key `b` inside of key `a`
    strict      refuse inputs of which something would be left out
    format      format of standard input, and of files given by name whose suffix is unknown:
                `jsonl`, `txt.gz`
    """

    documents: Documents = "blank-line"
    text_key: str = "text"
    strict: bool = False
    format: str | None = None


@dataclass(frozen=True)
class InputFile:
    """One file to be read.

    name      its path or URL
    bytes     its size, where that is known
    version   another one for another content: the time of its last change, or what a service tells;
              empty where nothing is known
    """

    name: str
    format: Format
    bytes: int | None
    version: str = ""

    @property
    def text_bytes(self) -> int:
        """About how many bytes of text lie in it."""
        if self.bytes is None:
            return _UNKNOWN_BYTES
        factor = _UNPACKED[self.format.packing]
        if self.format.kind == ".parquet":
            factor *= _UNPACKED_COLUMNS
        return factor * self.bytes


@dataclass(frozen=True)
class Inputs:
    """What `find_inputs` found of `given`, in order, and how it is to be read."""

    files: tuple[InputFile, ...]
    report: InputReport
    options: ReadOptions
    given: tuple[str, ...] = ()

    def identity(self, versions: bool = True) -> tuple[str, ...]:
        """Lines that are the same as long as the same documents come out: how is read, and what.

        Without `versions` for copies of the same files, whose times differ.
        """
        lines = [f"documents {self.options.documents}\ttext_key {self.options.text_key!r}"]
        for file in self.files:
            columns = [str(file.bytes), file.format.suffix, repr(identified(file.name))]
            if versions:
                columns.insert(2, str(file.version))
            lines.append("\t".join(columns))
        return tuple(lines)


@dataclass(frozen=True)
class Slice:
    """Some documents of one file, from `start` to before `end`; None stands for the whole rest.

    Both count what the format is cut by: bytes (.txt, .jsonl), row groups (.parquet), record
    batches (.arrow), shards (a dataset of the hub).
    """

    name: str
    format: Format
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Part:
    """What one worker reads at a time: a slice of a large file, or several small files."""

    slices: tuple[Slice, ...]
    text_bytes: int
    """About how many bytes of text lie in it."""
    options: ReadOptions = field(default_factory=ReadOptions)


class Piece(NamedTuple):
    """A document, or a piece of one that is too long to be handled whole.

    text        the pieces of a document, joined, are the document
    document    number of the document in its part, from 0
    number      number of the piece in its document, from 0
    last        whether the document ends with it
    """

    text: str
    document: int
    number: int
    last: bool
