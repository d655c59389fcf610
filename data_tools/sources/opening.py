"""Bytes of a file or URL, unpacked on the way; what fails becomes one `DataError` with its name."""

from __future__ import annotations

import atexit
import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from data_tools.sources.urls import HUB_PREFIX, STANDARD_INPUT_PREFIX, file_system, shown
from electra_dist.errors import DataError, UserError
from electra_dist.files.reading import open_regular
from electra_dist.files.urls import is_url

#: Bytes that are read of a packed file at a time.
_STEP = 2**13
_BUFFER = 2**18
_PACKINGS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}


#: The name that stands for standard input.
STANDARD_INPUT = "-"


class DamagedError(Exception):
    """A packed file that is cut off, or followed by something else."""


@contextmanager
def reading(name: str, packing: str = "") -> Iterator[None]:
    """Turn what goes wrong while `name` is read into a `DataError`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, DamagedError) as error:
        raise DataError(
            f"{shown(name)}: damaged {_PACKINGS.get(packing, '')} file ({error}); unpack it by"
            " hand to see how far it reads"
        ) from error
    except OSError as error:
        raise DataError(f"{shown(name)}: cannot be read: {error}") from error
    except Exception as error:  # services raise what they like
        if isinstance(error, UserError) or not (is_url(name) or name.startswith(HUB_PREFIX)):
            raise
        problem = f"{type(error).__name__}: {error}"
        raise DataError(f"{shown(name)}: cannot be read: {problem}") from error


def open_raw(name: str) -> BinaryIO:
    """The bytes of a regular file or a URL as they lie there."""
    if is_url(name):
        system, path = file_system(name)
        # the files of fsspec do not bound the lines that they read
        return io.BufferedReader(system.open(path, "rb"), _BUFFER)
    return open_regular(Path(name), follow=True)


@contextmanager
def open_unpacked(name: str, packing: str) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked, from first to last; the plain file can be sought in."""
    with open_raw(name) as raw:
        if not packing:
            yield raw
        elif packing == ".gz":
            with gzip.open(raw, "rb") as file:
                yield cast(BinaryIO, file)
        else:
            unpacking = _Unpacking(raw, _DECOMPRESSORS[packing])
            with io.BufferedReader(unpacking, _BUFFER) as buffered:
                yield cast(BinaryIO, buffered)


@contextmanager
def open_seekable(name: str, packing: str) -> Iterator[BinaryIO]:
    """The same for formats that are not read from first to last: unpacked to a temporary file."""
    with open_unpacked(name, packing) as file:
        if not packing:
            yield file
            return
        with tempfile.TemporaryFile(prefix="electra-dist-") as unpacked:
            copy(file, unpacked)
            unpacked.seek(0)
            yield cast(BinaryIO, unpacked)


def keep_standard_input(suffix: str) -> tuple[Path, str]:
    """Copy standard input to a temporary file, which workers can read; gives its SHA-256 too.

    The file is removed when this process ends.
    """
    descriptor, name = tempfile.mkstemp(prefix=STANDARD_INPUT_PREFIX, suffix=suffix)
    atexit.register(_remove, name)
    with open(descriptor, "wb") as file, reading(name):
        checksum = copy(sys.stdin.buffer, file)
    return Path(name), checksum


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name)


def copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy all bytes, in bounded steps; gives their SHA-256."""
    checksum = hashlib.sha256()
    while block := source.read(2**20):
        target.write(block)
        checksum.update(block)
    return checksum.hexdigest()


class _Unpacking(io.RawIOBase):
    """Several packed streams, one after the other, as one; damage at the end counts as such.

    The readers of the libraries take a file that is cut off (zstd), or followed by something else
    (bzip2, xz), for one that ends there.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], Any]) -> None:
        self._file = file
        self._new = new
        self._stream: Any = None
        self._rest = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._advance():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _advance(self) -> bool:
        """Unpack a little more; whether there was more."""
        packed = b""
        if self._stream is not None and self._stream.eof:
            self._rest = self._stream.unused_data
            self._stream = None
        if self._stream is None:
            packed = self._next_stream()
            if not packed:
                return False
            self._stream = self._new()
        elif self._stream.needs_input:
            packed = self._file.read(_STEP)
            if not packed:
                raise DamagedError("it ends in the middle")
        try:
            self._ready = self._stream.decompress(packed, _BUFFER)
        except OSError as error:  # what bz2 raises for bytes that it does not know
            raise DamagedError(str(error)) from error
        return True

    def _next_stream(self) -> bytes:
        """The first bytes of the next stream, after padding with zeros; none at the end."""
        packed = self._rest.lstrip(b"\0")
        self._rest = b""
        while not packed:
            block = self._file.read(_STEP)
            if not block:
                break
            packed = block.lstrip(b"\0")
        return packed


class _Zstandard:
    """A stream of zstd, with the methods of those of the standard library."""

    needs_input = True

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, packed: bytes, _: int) -> bytes:
        try:
            return self._stream.decompress(packed)
        except self._error as error:
            raise DamagedError(str(error)) from error


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
    ".zst": _Zstandard,
}
