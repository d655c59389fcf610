"""Documents of inputs, as the data commands read them: found, cut, read part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_tools.sources import (
    Part,
    Piece,
    ReadOptions,
    find_inputs,
    read_documents,
    read_pieces,
    split_parts,
)


def parts_of(*inputs: str | Path, part_bytes: int | None = None, **options: Any) -> list[Part]:
    """The parts; `options` are those of `ReadOptions`."""
    return split_parts(find_inputs(inputs, ReadOptions(**options)), part_bytes)


def read_all(*inputs: str | Path, part_bytes: int | None = None, **options: Any) -> list[str]:
    """All documents, in order."""
    parts = parts_of(*inputs, part_bytes=part_bytes, **options)
    return [document for part in parts for document in read_documents(part)]


def pieces_of(*inputs: str | Path, part_bytes: int | None = None, **options: Any) -> list[Piece]:
    """All pieces, in order."""
    parts = parts_of(*inputs, part_bytes=part_bytes, **options)
    return [piece for part in parts for piece in read_pieces(part)]
