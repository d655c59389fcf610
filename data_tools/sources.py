"""Readers of every input format: files and folders in, documents out, one at a time.

`.txt` holds documents apart by blank lines; `.jsonl` and `.jsonl.gz` one JSON object a line with the document
under "text". A folder stands for all such files in it, at any depth, sorted by path. Large plain files are cut into
`Part`s at document boundaries, so that several processes can read one file; which documents there are, and
their order, does not depend on the cut. Everything is UTF-8; what is not gets a `DataError` naming file and byte.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from electra_dist.errors import DataError

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz")
#: Bytes of a `Part` of a plain file.
PART_BYTES = 32 * 2**20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """The documents of `path` that start in bytes [start, end); a compressed file is one part.

    `end` is None for "to the end of the file".
    """

    path: Path
    start: int = 0
    end: int | None = None

    @property
    def text_bytes(self) -> int:
        """About how many bytes of text lie in it (a compressed file is taken to unpack to three times its size)."""
        if _is_gzip(self.path):
            return 3 * self.path.stat().st_size
        return (self.path.stat().st_size if self.end is None else self.end) - self.start


def _is_gzip(path: Path) -> bool:
    return path.name.endswith(".gz")


def _is_jsonl(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def find_inputs(inputs: Sequence[Path]) -> list[Path]:
    """The input files behind `inputs` (files and folders), in order, each once.

    Raises `DataError` when a path is missing, has an unknown suffix, is a folder without input files, or is empty.
    """
    files: dict[Path, None] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            inside = sorted(path for path in given.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES))
            if not inside:
                raise DataError(
                    f"{given}: no input files in this folder; expected files ending in {', '.join(SUFFIXES)}"
                )
            files.update(dict.fromkeys(inside))
        elif not given.exists():
            raise DataError(f"{given}: no such file or folder")
        elif not given.name.endswith(SUFFIXES):
            raise DataError(f"{given}: unknown input format; expected a file ending in {', '.join(SUFFIXES)}")
        else:
            files[given] = None
    if not files:
        raise DataError("no input given; name at least one file or folder")
    if not any(path.stat().st_size for path in files):
        raise DataError(f"{', '.join(map(str, list(files)[:5]))}: empty input, there is no text in it")
    return list(files)


def split_parts(files: Sequence[Path], part_bytes: int = PART_BYTES) -> list[Part]:
    """Cut plain files larger than `part_bytes` into parts; the parts of a file follow each other."""
    parts: list[Part] = []
    for path in files:
        size = path.stat().st_size
        if _is_gzip(path) or size <= part_bytes:
            parts.append(Part(path))
            continue
        starts = [*range(0, size, part_bytes)]
        parts.extend(Part(path, start, min(start + part_bytes, size)) for start in starts)
    return parts


def read_documents(part: Part) -> Iterator[str]:
    """The documents of one part, in order; empty ones included.

    Raises `DataError` for text that is not UTF-8, a line that is no JSON object with a string under "text", or a
    compressed file that is damaged.
    """
    read = _read_jsonl if _is_jsonl(part.path) else _read_txt
    try:
        with _open(part.path) as file:
            yield from read(part, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{part.path}: damaged gzip file ({error}); unpack it by hand to see how far it reads"
        ) from error
    except OSError as error:
        raise DataError(f"{part.path}: cannot be read: {error}") from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if _is_gzip(path) else path.open("rb")  # type: ignore[return-value]


def _lines(part: Part, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(offset, line) from the first line that starts at or after `part.start`, to the end of the file."""
    offset = part.start
    if part.start:
        file.seek(part.start - 1)
        offset += len(file.readline()) - 1
    for line in file:
        yield offset, line
        offset += len(line)


def _decode(part: Part, offset: int, line: bytes) -> str:
    if offset == 0:
        line = line.removeprefix(_BOM)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        at = offset + error.start
        with _open(part.path) as file:
            number = file.read(offset).count(b"\n") + 1
        raise DataError(
            f"{part.path}, line {number}, byte {at}: not UTF-8 (byte 0x{line[error.start]:02x});"
            " convert the file, for example with `iconv -f latin1 -t utf-8`"
        ) from error


def _read_txt(part: Part, file: IO[bytes]) -> Iterator[str]:
    """Documents apart by blank lines: a document belongs to the part in which its first line starts."""
    document: list[str] = []
    # In the middle of a file, lines before the first blank one belong to a document of the part before.
    skipping = part.start > 0 and not _after_blank_line(part, file)
    for offset, line in _lines(part, file):
        text = _decode(part, offset, line).rstrip("\r\n")
        if not text.strip():
            if document:
                yield "\n".join(document)
            document, skipping = [], False
        elif not skipping:
            if not document and part.end is not None and offset >= part.end:
                return
            document.append(text)
        if part.end is not None and offset >= part.end and not document:
            return
    if document:
        yield "\n".join(document)


def _after_blank_line(part: Part, file: IO[bytes]) -> bool:
    """Whether the line before the first line of this part is blank; reads back as far as that line starts."""
    file.seek(part.start - 1)
    first = part.start - 1 + len(file.readline())
    step, low = 4096, first
    while low > 0:
        low = max(0, low - step)
        file.seek(low)
        before = file.read(first - low)
        lines = before.split(b"\n")
        if len(lines) > 2 or low == 0:
            return not lines[-2].strip() if len(lines) > 1 else False
        step *= 2
    return True


def _read_jsonl(part: Part, file: IO[bytes]) -> Iterator[str]:
    for offset, line in _lines(part, file):
        if part.end is not None and offset >= part.end:
            return
        text = _decode(part, offset, line)
        if text.strip():
            yield _text_of(part, offset, text)


def _text_of(part: Part, offset: int, line: str) -> str:
    try:
        content: Any = json.loads(line)
    except ValueError as error:
        raise _bad_line(part, offset, f"not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise _bad_line(part, offset, f"expected a JSON object, found {type(content).__name__}")
    text = content.get("text")
    if not isinstance(text, str):
        found = f"keys {sorted(content)[:8]}" if "text" not in content else f"a {type(text).__name__} there"
        raise _bad_line(part, offset, f'expected the document as a string under "text", found {found}')
    return text


def _bad_line(part: Part, offset: int, problem: str) -> DataError:
    with _open(part.path) as file:
        number = file.read(offset).count(b"\n") + 1
    return DataError(f"{part.path}, line {number}: {problem}")
