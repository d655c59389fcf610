"""Compressed files of JSON lines: `{"text": ...}`, one document per line.

The same documents give the same bytes: no time, no name and no thread count goes into a file.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, cast, get_args

from electra_dist.errors import DataError, UserError
from electra_dist.files.writing import whole_file

Compression = Literal["zst", "gz"]
COMPRESSIONS: tuple[str, ...] = get_args(Compression)

_GZIP_LEVEL = 4
_ZSTD_LEVEL = 3


def check_compression(compression: str) -> None:
    """Raise `DataError` for an unknown one, `UserError` where its package is not installed."""
    if compression not in COMPRESSIONS:
        raise DataError(f"`compress` {compression}: expected one of {', '.join(COMPRESSIONS)}")
    if compression == "zst":
        try:
            import zstandard  # noqa: F401
        except ImportError as error:
            raise UserError(
                "`compress` zst needs zstandard: pip install zstandard, or give gz"
            ) from error


def to_line(text: str) -> bytes:
    """One document as a line of JSON; lone surrogates, which UTF-8 cannot hold, are escaped."""
    try:
        return json.dumps({"text": text}, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps({"text": text}).encode("utf-8") + b"\n"


def to_text(line: bytes) -> str:
    """The document of a line that `to_line` made."""
    return str(json.loads(line)["text"])


@contextlib.contextmanager
def writing_lines(path: Path, compression: Compression) -> Iterator[IO[bytes]]:
    """A file that what is written into goes to, compressed; it is whole or absent."""
    with (
        whole_file(path) as temporary,
        temporary.open("wb") as raw,
        compressing(raw, compression) as file,
    ):
        yield file


@contextlib.contextmanager
def compressing(raw: IO[bytes], compression: Compression) -> Iterator[IO[bytes]]:
    """What is written goes to `raw`, compressed."""
    if compression == "gz":
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as file:
            yield cast(IO[bytes], file)
    else:
        import zstandard

        with zstandard.ZstdCompressor(_ZSTD_LEVEL).stream_writer(raw, closefd=False) as out:
            yield cast(IO[bytes], out)


@contextlib.contextmanager
def reading_lines(path: Path, compression: Compression) -> Iterator[Iterator[bytes]]:
    """The lines of a file that `writing_lines` made."""
    with path.open("rb") as raw:
        if compression == "gz":
            with gzip.GzipFile("", "rb", fileobj=raw) as file:
                yield iter(file)
        else:
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(raw) as stream:
                yield iter(io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20))
