"""The documents of a part, in pieces of bounded size or whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from data_tools.sources.columns import read_arrow, read_parquet
from data_tools.sources.decoding import MAX_RECORD_BYTES
from data_tools.sources.hub import HUB, read_hub
from data_tools.sources.opening import reading
from data_tools.sources.records import read_json, read_jsonl, read_table
from data_tools.sources.text import PIECE_CHARACTERS, cut_document, text_fragments
from data_tools.sources.types import Part, Piece, ReadOptions, Slice
from data_tools.sources.urls import shown
from electra_dist.errors import DataError

#: The reader of the records of each format but .txt: one text for each document. The slices of a
#: file together give each document once.
READERS: dict[str, Callable[[Slice, ReadOptions], Iterator[str]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    HUB.kind: read_hub,
}


def read_pieces(part: Part) -> Iterator[Piece]:
    """The documents of one part, in order, the long ones in several pieces.

    A .txt is read in steps of a megabyte, whatever the length of its documents and lines. A record
    of the other formats is held whole. The pieces of a document are the same however the file was
    cut. Raises `DataError` for text that is not UTF-8, a record without a text under its key, or a
    file that is damaged.
    """
    document = 0
    for piece in part.slices:
        number = 0
        with reading(piece.name, piece.format.packing):
            for text, last in _fragments(piece, part.options):
                yield Piece(text, document, number, last)
                if last:
                    document += 1
                    number = 0
                else:
                    number += 1


def _fragments(piece: Slice, options: ReadOptions) -> Iterator[tuple[str, bool]]:
    if piece.format.kind == ".txt":
        yield from text_fragments(piece, options)
        return
    for text in READERS[piece.format.kind](piece, options):
        if len(text) <= PIECE_CHARACTERS:
            yield text, True
        else:
            yield from cut_document(text)


def read_documents(part: Part) -> Iterator[str]:
    """The documents of one part, in order and whole; of records empty ones too.

    Raises what `read_pieces` raises, and `DataError` for a document of more characters than memory
    should hold.
    """
    pieces: list[str] = []
    size = 0
    for piece in read_pieces(part):
        if piece.last and not pieces:
            yield piece.text
            continue
        pieces.append(piece.text)
        size += len(piece.text)
        if size > MAX_RECORD_BYTES:
            names = ", ".join(shown(one.name) for one in part.slices[:3])
            raise DataError(
                f"{names}: a document of more than {MAX_RECORD_BYTES:,} characters is too long to"
                " be read whole; read it in pieces, or cut it"
            )
        if piece.last:
            yield "".join(pieces)
            pieces = []
            size = 0
