"""What a block is, in memory and as two members of a tar: made, checked and taken apart.

    NAME.lengths.npy   (D,) uint32, tokens of each document
    NAME.tokens.npy    (T,) uint16 or uint32, the ids of whole documents, end to end

The bytes may come from anywhere, so nothing in them is believed: sizes are held against the counts
of the index before anything is allocated, and only plain members and plain arrays are taken. The
checksum is the CRC-32 of both members' contents, lengths first. It finds every damage to one or two
bits, or to any run of up to 32, and all but one in four thousand million of any other; it is no
defence against intent (SHA-256 of the whole shard is).

Letters: T tokens of a block, D documents of a block.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LENGTHS = "lengths.npy"
TOKENS = "tokens.npy"
#: Size of the steps of a tar file, and of the header of each member.
_TAR_BLOCK = 512
#: A .npy file starts with its version and the length of the header that follows;
#: ours take 128 bytes together.
_NPY_VERSION_1 = b"\x93NUMPY\x01\x00"
_NPY_PREFIX = len(_NPY_VERSION_1) + 2
_NPY_HEADER = 1024
_LENGTH = np.dtype("<u4")


@dataclass(frozen=True)
class Block:
    """Documents end to end: `tokens` (T,) uint16 or uint32, `lengths` (D,)
    uint32, sum(lengths) = T; read-only.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    lengths: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class BlockSize:
    """What a block must hold: T tokens of type `dtype` in D documents."""

    tokens: int
    documents: int
    dtype: np.dtype[Any]

    @property
    def members(self) -> dict[str, tuple[int, np.dtype[Any]]]:
        """Number and type of the elements of each member."""
        return {LENGTHS: (self.documents, _LENGTH), TOKENS: (self.tokens, self.dtype)}

    @property
    def most_bytes(self) -> int:
        """The most bytes of a tar that such a block can take."""
        return sum(_TAR_BLOCK + _padded(self._most(name)) for name in self.members)

    def _most(self, name: str) -> int:
        count, dtype = self.members[name]
        return _NPY_HEADER + count * dtype.itemsize


class DamageError(Exception):
    """What is wrong with the bytes of a block."""


def checksum(lengths: bytes | memoryview, tokens: bytes | memoryview) -> int:
    """CRC-32 of the contents of both members."""
    return zlib.crc32(tokens, zlib.crc32(lengths))


def array_bytes(array: npt.NDArray[Any]) -> bytes:
    """`array` as the content of a .npy file, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def parse_members(content: bytes, key: str, size: BlockSize) -> dict[str, memoryview]:
    """The contents of both members of the sample `key`, which starts where `content` does.

    Raises `DamageError` for a member of another name or type (a link, a sparse file) or of a size
    that cannot be.
    """
    found: dict[str, memoryview] = {}
    view = memoryview(content)
    start = 0
    while len(found) < 2:
        info = _tar_header(view[start : start + _TAR_BLOCK])
        name = info.name.removeprefix(f"{key}.")
        if info.name != f"{key}.{name}" or name not in size.members or name in found:
            raise DamageError(f"found {info.name[:100]!r} where the members of {key} should be")
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise DamageError(
                f"{info.name} is not a plain file in the archive (type {info.type!r})"
            )
        first = start + _TAR_BLOCK
        start = first + _padded(info.size)
        if not info.size > 0 or start > len(content):
            raise DamageError(f"{info.name} claims {info.size} bytes, which are not there")
        found[name] = view[first : first + info.size]
    return found


def parse_block(members: dict[str, memoryview], size: BlockSize) -> Block:
    """The arrays in both members; raises `DamageError` when one is not what `size` says."""
    arrays = {name: _array(name, members[name], *size.members[name]) for name in members}
    return Block(arrays[TOKENS], arrays[LENGTHS])


def _padded(size: int) -> int:
    return -(-size // _TAR_BLOCK) * _TAR_BLOCK


def _tar_header(header: memoryview) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(bytes(header), "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise DamageError(
            f"no header of an archive's member where one should be: {error}"
        ) from error


def _array(name: str, content: memoryview, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The one-dimensional array in a .npy file, without a copy.

    Its header is compared with the one that such an array has; no header of somebody else's is
    interpreted.
    """
    start = _NPY_PREFIX + int.from_bytes(content[_NPY_PREFIX - 2 : _NPY_PREFIX], "little")
    if bytes(content[: _NPY_PREFIX - 2]) != _NPY_VERSION_1 or start > _NPY_HEADER:
        raise DamageError(f"{name} is no .npy file of version 1.0")
    header = bytes(content[_NPY_PREFIX:start]).decode("latin1").rstrip()
    expected = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({count},), }}"
    if header != expected:
        raise DamageError(f"{name} is described as {header[:100]!r}, the index says {expected!r}")
    if len(content) != start + count * dtype.itemsize:
        raise DamageError(
            f"{name} has {len(content) - start} bytes of elements, expected"
            f" {count * dtype.itemsize}"
        )
    return np.frombuffer(content, dtype, count, start)
