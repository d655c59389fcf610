"""The documents of one input, dealt into files of bounded size: one process reads, several encode.

A packed file, a table or an array of JSON can only be read from first to last. Whoever reads it
deals its documents; each deal is a file, and who has taken its documents removes it. A deal ends
with the document that fills it, so the same input gives the same deals.

A file is a sequence of pieces: the bytes of its text, whether the document ends with it, the text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.sources import Part, Piece, read_pieces

_HEAD = struct.Struct("<I?")


@dataclass(frozen=True)
class Deal:
    """Some documents of a part.

    number  of the deal in its part, from 0
    first   number of its first document in the part
    path    of its file, which is not there where the deal was not wanted
    """

    number: int
    first: int
    path: Path


def deal_out(
    part: Part, deal_bytes: int, path_of: Callable[[int], Path], unwanted: Collection[int] = ()
) -> Iterator[Deal]:
    """Read `part` once, and give its documents in deals of about `deal_bytes` bytes of text.

    `path_of` names the file of a deal by its number. The `unwanted` ones are read and not written.
    Raises what `read_pieces` raises, `OSError`.
    """
    stream = read_pieces(part)
    ahead = next(stream, None)
    number = 0
    while ahead is not None:
        deal = Deal(number, ahead.document, path_of(number))
        texts = _texts(ahead, stream, deal_bytes)
        if number in unwanted:
            for _ in texts:
                pass
        else:
            _write(deal.path, texts)
        yield deal
        ahead = next(stream, None)
        number += 1


def _texts(first: Piece, stream: Iterator[Piece], most: int) -> Iterator[tuple[bytes, bool]]:
    """(text, whether its document ends) from `first` to the end of the document that fills a
    deal.
    """
    size = 0
    piece: Piece | None = first
    while piece is not None:
        text = piece.text.encode("utf-8", "surrogatepass")
        size += len(text)
        yield text, piece.last
        if piece.last and size >= most:
            return
        piece = next(stream, None)


def _write(path: Path, texts: Iterator[tuple[bytes, bool]]) -> None:
    with path.open("wb") as file:
        for text, last in texts:
            file.write(_HEAD.pack(len(text), last))
            file.write(text)


def read_deal(deal: Deal) -> Iterator[Piece]:
    """The documents of a deal, numbered from 0; raises `OSError`."""
    document = 0
    number = 0
    with deal.path.open("rb") as file:
        while head := file.read(_HEAD.size):
            size, last = _HEAD.unpack(head)
            text = file.read(size).decode("utf-8", "surrogatepass")
            yield Piece(text, document, number, last)
            if last:
                document += 1
                number = 0
            else:
                number += 1
