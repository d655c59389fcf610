"""Inputs cut into parts: what one process reads at a time.

Large plain files are cut by bytes, row groups or record batches. A packed file is one part, so that
it is unpacked once; so are tables and arrays of JSON. Small files are put together.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_tools.sources.columns import arrow_cuts, parquet_cuts
from data_tools.sources.hub import HUB, hub_cuts
from data_tools.sources.opening import reading
from data_tools.sources.types import InputFile, Inputs, Part, ReadOptions, Slice

#: Bounds of the size of a part: below, starting is most of the work; above, so is memory.
MIN_PART_BYTES = 2**20
MAX_PART_BYTES = 64 * 2**20

#: A slice, and about how many bytes of text lie in it.
_Sized = tuple[Slice, int]


def split_parts(inputs: Inputs, part_bytes: int | None = None) -> list[Part]:
    """Cut inputs into parts of about `part_bytes` bytes of text;
    by default as many as keep dozens of workers busy.

    Raises `DataError` for a file that has to be opened to be cut, and is damaged.
    """
    part_bytes = part_bytes or suitable_part_bytes(inputs)
    parts: list[Part] = []
    group: list[_Sized] = []
    size = 0
    for file in inputs.files:
        for piece in _slices(file, part_bytes, inputs.options):
            if group and size + piece[1] > part_bytes:
                parts.append(_part(group, inputs.options))
                group = []
                size = 0
            group.append(piece)
            size += piece[1]
    if group:
        parts.append(_part(group, inputs.options))
    return parts


def suitable_part_bytes(inputs: Inputs) -> int:
    """The size of parts that keeps dozens of workers busy, and the memory of each small."""
    total = sum(file.text_bytes for file in inputs.files)
    return max(MIN_PART_BYTES, min(MAX_PART_BYTES, total // 64))


def _part(group: list[_Sized], options: ReadOptions) -> Part:
    slices = tuple(piece for piece, _ in group)
    return Part(slices, sum(size for _, size in group), options)


def _slices(file: InputFile, part_bytes: int, options: ReadOptions) -> Iterator[_Sized]:
    """The slices of one file; one of it all where it is small or cannot be cut."""
    whole = (Slice(file.name, file.format), file.text_bytes)
    if file.format == HUB:
        cuts = hub_cuts(file.name)
        for start, end in cuts:
            yield Slice(file.name, file.format, start, end), file.text_bytes
        return
    if file.text_bytes <= part_bytes or file.bytes is None or file.format.packing:
        yield whole
        return
    kind = file.format.kind
    if kind == ".jsonl" or (kind == ".txt" and options.documents != "file"):
        for start in range(0, file.bytes, part_bytes):
            end = min(start + part_bytes, file.bytes)
            yield Slice(file.name, file.format, start, end), end - start
    elif kind in (".parquet", ".arrow"):
        with reading(file.name):
            if kind == ".parquet":
                found = parquet_cuts(file, part_bytes)
            else:
                found = arrow_cuts(file, part_bytes)
        for first, last, size in found:
            yield Slice(file.name, file.format, first, last), size
        if not found:
            yield whole
    else:
        yield whole
