"""The tables beside a manifest: one entry for each shard, and one for each block of a split.

    SPLIT.shards-DIGEST.npy   read whole and held against its SHA-256 when the manifest is opened
    SPLIT.blocks-DIGEST.npy   one entry is read for each block that is wanted

Both are plain .npy files of one record type, so that `numpy.load` reads them. The name has the
first digits of the SHA-256: tables of an older manifest stay for whoever has it open. The table of
blocks is read by position and not mapped: a mapped file that somebody cuts off kills the process,
where a read gives an error that names the file.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import numpy.typing as npt

from electra_dist.data.shards.facts import ShardFacts, SplitName, shard_name, shard_number
from electra_dist.data.shards.files import (
    CHANGED,
    REPLACE,
    FileFacts,
    explained,
)
from electra_dist.errors import DataError
from electra_dist.files.reading import (
    MIB,
    open_regular,
    read_bounded,
)

#: A tar file consists of pieces of this size, and every block starts with one.
TAR_STEP = 512
#: `start` is the offset of the block's first tar header, in steps of 512 bytes.
BLOCK = np.dtype([("start", "<u4"), ("tokens", "<u4"), ("documents", "<u4"), ("crc32", "<u4")])
#: `blocks_crc32` is the CRC-32 of the shard's entries in the table of blocks.
SHARD = np.dtype(
    [
        ("bytes", "<u8"),
        ("tokens", "<u8"),
        ("documents", "<u8"),
        ("blocks", "<u4"),
        ("number", "<u4"),
        ("blocks_crc32", "<u4"),
        ("sha256", "u1", (32,)),
    ]
)
#: Bytes of a table of shards at most: a million of them.
_SHARD_TABLE_LIMIT = 80 * MIB
_TABLE_NAME = re.compile(r"(train|validation)\.(shards|blocks)-[0-9a-f]{8}\.npy")

Records = npt.NDArray[np.void]


class ShardRows(Sequence[ShardFacts]):
    """The shards of a split, each made of its entry in the table when it is asked for."""

    def __init__(self, split: SplitName, records: Records) -> None:
        self._split = split
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, number: int) -> ShardFacts: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[ShardFacts, ...]: ...

    def __getitem__(self, number: int | slice) -> ShardFacts | tuple[ShardFacts, ...]:
        if isinstance(number, slice):
            return tuple(self._facts(record) for record in self.records[number].tolist())
        return self._facts(self.records[number].tolist())

    def __iter__(self) -> Iterator[ShardFacts]:
        for first in range(0, len(self), 1024):
            yield from self[first : first + 1024]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ShardRows):
            return self._split == other._split and np.array_equal(self.records, other.records)
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> ShardRows:
        return self  # nothing in it changes

    def _facts(self, record: tuple[Any, ...]) -> ShardFacts:
        size, tokens, documents, blocks, number, _, digest = record
        tar = FileFacts(f"{shard_name(self._split, number)}.tar", size, bytes(digest).hex())
        return ShardFacts(tar, None, blocks, documents, tokens)


# --- reading --------------------------------------------------------------------------------------


def is_table_name(name: str) -> bool:
    """Whether a file of this name is a table, of this manifest or an older one."""
    return _TABLE_NAME.fullmatch(name) is not None


def read_shard_table(folder: Path, split: SplitName, facts: FileFacts) -> ShardRows:
    """The shards of a split; raises `DataError` when their table is gone or damaged."""
    path = folder / facts.name
    with explained(path):
        content = read_bounded(path, min(facts.bytes, _SHARD_TABLE_LIMIT))
    if len(content) != facts.bytes or hashlib.sha256(content).hexdigest() != facts.sha256:
        raise DataError(f"{path}: {CHANGED}")
    rows, rest = divmod(len(content) - len(_header(SHARD, 0)), SHARD.itemsize)
    if rest or rows < 0 or not content.startswith(_header(SHARD, rows)):
        raise DataError(f"{path}: is no table of shards; {REPLACE}")
    records = np.frombuffer(content, SHARD, rows, len(_header(SHARD, rows)))
    numbers = records["number"].astype(np.int64)
    if (np.diff(numbers) <= 0).any():
        raise DataError(f"{path}: its shards are not in ascending order; {REPLACE}")
    return ShardRows(split, records)


class BlockTable:
    """The table of the blocks of a split, open for reading, `rows` entries."""

    def __init__(self, folder: Path, facts: FileFacts, rows: int) -> None:
        self.path = folder / facts.name
        header = _header(BLOCK, rows)
        self._first = len(header)
        self._rows = rows
        self._file = self._open()
        size = os.fstat(self._file.fileno()).st_size
        expected = len(header) + rows * BLOCK.itemsize
        if size != expected or facts.bytes != expected:
            raise DataError(
                f"{self.path}: has {size} bytes, {rows} blocks take {expected}; {REPLACE}"
            )
        if self._read(0, len(header)) != header:
            raise DataError(f"{self.path}: is no table of {rows} blocks; {REPLACE}")

    def read(self, first: int, count: int) -> Records:
        """The entries of `count` blocks from `first` on."""
        if not 0 <= first <= first + count <= self._rows:
            raise IndexError(f"blocks {first} to {first + count} of {self._rows}")
        size = count * BLOCK.itemsize
        content = self._read(self._first + first * BLOCK.itemsize, size)
        if len(content) != size:
            raise DataError(f"{self.path}: ends too early; {REPLACE}")
        return np.frombuffer(content, BLOCK)

    def _open(self) -> BinaryIO:
        with explained(self.path):
            return open_regular(self.path)

    def _read(self, offset: int, size: int) -> bytes:
        with explained(self.path):
            return os.pread(self._file.fileno(), size, offset)


def block_table_bytes(rows: int) -> int:
    """Size of the table of `rows` blocks."""
    return len(_header(BLOCK, rows)) + rows * BLOCK.itemsize


def _header(dtype: np.dtype[Any], rows: int) -> bytes:
    """How a .npy file of `rows` records starts."""
    buffer = io.BytesIO()
    content = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (rows,),
    }
    np.lib.format.write_array_header_1_0(buffer, content)
    return buffer.getvalue()


# --- writing --------------------------------------------------------------------------------------


def shard_record(split: SplitName, shard: ShardFacts, entries: Records) -> Records:
    """The entry of one shard, whose blocks have `entries`; raises `DataError` for a name that no
    number gives.
    """
    number = shard_number(split, shard.tar.name)
    if number is None:
        raise DataError(
            f"{shard.tar.name}: no name of a shard of the split {split}; expected"
            f" {shard_name(split, 0)}.tar, {shard_name(split, 1)}.tar and so on"
        )
    record = np.zeros(1, SHARD)
    record["bytes"] = shard.tar.bytes
    record["tokens"] = shard.tokens
    record["documents"] = shard.documents
    record["blocks"] = shard.blocks
    record["number"] = number
    record["blocks_crc32"] = zlib.crc32(entries.tobytes())
    record["sha256"] = np.frombuffer(bytes.fromhex(shard.tar.sha256), np.uint8)
    return record


def write_table(
    folder: Path, stem: str, dtype: np.dtype[Any], rows: int, parts: Iterator[Records]
) -> FileFacts:
    """Write `parts`, together `rows` records, as `STEM-DIGEST.npy`; it is whole or absent.

    One part is in memory at a time. Raises `OSError`.
    """
    digest = hashlib.sha256()
    size = 0
    temporary = folder / f".{stem}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            for content in _contents(dtype, rows, parts):
                file.write(content)
                digest.update(content)
                size += len(content)
            file.flush()
            os.fsync(file.fileno())
        name = f"{stem}-{digest.hexdigest()[:8]}.npy"
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return FileFacts(name, size, digest.hexdigest())


def _contents(dtype: np.dtype[Any], rows: int, parts: Iterator[Records]) -> Iterator[bytes]:
    yield _header(dtype, rows)
    written = 0
    for part in parts:
        written += len(part)
        yield part.tobytes()
    if written != rows:
        raise ValueError(f"{written} records for a table of {rows}")
