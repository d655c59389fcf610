"""Readers of every input format: files and folders in, documents out, one at a time.

`.txt` holds documents apart by blank lines; `.jsonl` and `.jsonl.gz` one JSON object a line with
the document under "text". A folder stands for all such files in it, at any depth, sorted by path.
Large files are cut into `Part`s, so that several processes can read one file: plain ones by bytes
at document boundaries, compressed ones by taking turns at the lines. Together the parts have every
document once. Everything is UTF-8; what is not gets a `DataError` naming file and byte.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from electra_dist.errors import DataError

#: Bounds of the size of a `Part`: below, starting is most of the work; above, so is memory.
MIN_PART_BYTES = 2**20
MAX_PART_BYTES = 64 * 2**20
#: Parts of one compressed file at most: each unpacks all of it.
MAX_TURNS = 8
_UNPACKED = 3  # bytes of text from one compressed byte, about
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """Some documents of `path`: those that start in bytes [start, end), and of these lines each
    `turns`-th from `turn`.

    `end` is None for "to the end of the file".
    """

    path: Path
    start: int = 0
    end: int | None = None
    turn: int = 0
    turns: int = 1

    @property
    def text_bytes(self) -> int:
        """About how many bytes of text lie in it."""
        if _is_gzip(self.path):
            return _UNPACKED * self.path.stat().st_size // self.turns
        return (self.path.stat().st_size if self.end is None else self.end) - self.start


def _is_gzip(path: Path) -> bool:
    return path.name.endswith(".gz")


def find_inputs(inputs: Sequence[Path]) -> list[Path]:
    """The input files behind `inputs` (files and folders), in order, each once.

    Raises `DataError` when a path is missing or a special file, has an unknown suffix, is a folder
    without input files, or is empty.
    """
    files: dict[Path, None] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            inside = sorted(
                path for path in given.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES)
            )
            if not inside:
                raise DataError(
                    f"{given}: no input files in this folder; expected files ending in"
                    f" {', '.join(SUFFIXES)}"
                )
            files.update(dict.fromkeys(inside))
        elif not given.exists():
            raise DataError(f"{given}: no such file or folder")
        elif not given.is_file():
            raise DataError(f"{given}: is a special file; expected a regular file or a folder")
        elif not given.name.endswith(SUFFIXES):
            raise DataError(
                f"{given}: unknown input format; expected a file ending in {', '.join(SUFFIXES)}"
            )
        else:
            files[given] = None
    if not files:
        raise DataError("no input given; name at least one file or folder")
    if not any(path.stat().st_size for path in files):
        raise DataError(
            f"{', '.join(map(str, list(files)[:5]))}: empty input, there is no text in it"
        )
    return list(files)


def split_parts(files: Sequence[Path], part_bytes: int | None = None) -> list[Part]:
    """Cut files into parts of about `part_bytes` bytes of text;
    by default as many as keep dozens of workers busy.
    """
    if part_bytes is None:
        total = sum(Part(path).text_bytes for path in files)
        part_bytes = max(MIN_PART_BYTES, min(MAX_PART_BYTES, total // 64))
    parts: list[Part] = []
    for path in files:
        if _is_gzip(path):
            turns = max(1, min(MAX_TURNS, -(-Part(path).text_bytes // part_bytes)))
            parts.extend(Part(path, turn=turn, turns=turns) for turn in range(turns))
        else:
            size = path.stat().st_size
            parts.extend(
                Part(path, start, min(start + part_bytes, size))
                for start in range(0, size, part_bytes)
            )
    return parts


def read_documents(part: Part) -> Iterator[str]:
    """The documents of one part, in order; empty ones included.

    Raises `DataError` for text that is not UTF-8, a line that is no JSON object with a string under
    "text", or a compressed file that is damaged.
    """
    suffix = next(suffix for suffix in READERS if part.path.name.endswith(suffix))
    try:
        with _open(part.path) as file:
            yield from READERS[suffix](part, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{part.path}: damaged gzip file ({error}); unpack it by hand to see how far it reads"
        ) from error
    except OSError as error:
        raise DataError(f"{part.path}: cannot be read: {error}") from error


def _open(path: Path) -> IO[bytes]:
    if _is_gzip(path):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _lines(part: Part, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(offset, line) from the first line that starts at or after `part.start`,
    to the end of the file.
    """
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
        where = f"{part.path}, line {_line_number(part.path, offset)}, byte {offset + error.start}"
        raise DataError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x}); convert the file, for example"
            " with `iconv -f latin1 -t utf-8`"
        ) from error


def _read_txt(part: Part, file: IO[bytes]) -> Iterator[str]:
    """Documents apart by blank lines:
    a document belongs to the part in which its first line starts.
    """
    document: list[str] = []
    # In the middle of a file, lines before the first blank one
    # belong to a document of the part before.
    skipping = part.start > 0 and not _after_blank_line(part, file)
    for offset, line in _lines(part, file):
        text = _decode(part, offset, line).rstrip("\r\n")
        if not line.strip():
            if document:
                yield "\n".join(document)
            document = []
            skipping = False
        elif not skipping:
            if not document and part.end is not None and offset >= part.end:
                return
            document.append(text)
        if part.end is not None and offset >= part.end and not document:
            return
    if document:
        yield "\n".join(document)


def _after_blank_line(part: Part, file: IO[bytes]) -> bool:
    """Whether the line before the first line of this part is blank;
    reads back as far as that line starts.
    """
    file.seek(part.start - 1)
    first = part.start - 1 + len(file.readline())
    step = 4096
    low = first
    while low > 0:
        low = max(0, low - step)
        file.seek(low)
        before = file.read(first - low)
        lines = before.split(b"\n")
        if len(lines) > 2 or low == 0:
            if len(lines) > 1:
                return not lines[-2].strip()
            return False
        step *= 2
    return True


def _read_jsonl(part: Part, file: IO[bytes]) -> Iterator[str]:
    for number, (offset, line) in enumerate(_lines(part, file)):
        if part.end is not None and offset >= part.end:
            return
        if number % part.turns != part.turn:
            continue
        text = _decode(part, offset, line)
        if text.strip():
            yield _text_of(part, offset, text)


def _text_of(part: Part, offset: int, line: str) -> str:
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _bad_line(part, offset, f"not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise _bad_line(part, offset, f"expected a JSON object, found {type(content).__name__}")
    text = content.get("text")
    if not isinstance(text, str):
        if "text" not in content:
            found = f"keys {sorted(content)[:8]}"
        else:
            found = f"a {type(text).__name__} there"
        raise _bad_line(
            part, offset, f'expected the document as a string under "text", found {found}'
        )
    return text


def _bad_line(part: Part, offset: int, problem: str) -> DataError:
    return DataError(f"{part.path}, line {_line_number(part.path, offset)}: {problem}")


def _line_number(path: Path, offset: int) -> int:
    """Number, from 1, of the line that starts at `offset`."""
    with _open(path) as file:
        number = 1
        while offset > 0:
            chunk = file.read(min(offset, 2**20))
            number += chunk.count(b"\n")
            if chunk:
                offset = offset - len(chunk)
            else:
                offset = 0
        return number


#: Suffix of an input file -> the reader of its documents. The parts of a file together give each
#: document once; a name that ends in `.gz` is unpacked before.
READERS: dict[str, Callable[[Part, IO[bytes]], Iterator[str]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
}
SUFFIXES = tuple(READERS)
