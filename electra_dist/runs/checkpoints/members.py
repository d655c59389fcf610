"""The files of one checkpoint: written with their checksum, opened safely, compared with the
manifest.

Tensors lie in the safetensors format, fp32 and flat. They are written from memory without another
copy, hashed on the way, and read with `pread`: a file that another process removes or cuts
meanwhile is an `OSError`, where a mapped one would end the process by SIGBUS. Any safetensors
library reads the files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from electra_dist.errors import CheckpointError
from electra_dist.files.checksums import sha256_of
from electra_dist.files.reading import MIB, NotRegularError
from electra_dist.files.writing import reason
from electra_dist.parallel import signs
from electra_dist.runs.checkpoints.manifest import COMPLETE, MANIFEST, CheckpointManifest, FileEntry

#: Called with the number of bytes that were read since the last call.
Told = Callable[[int], None]
_CHUNK = 4 * MIB
_FP32 = 4
_HEADER_LENGTH_BYTES = 8
_HEADER_LIMIT = 100 * MIB  # that of the safetensors library
#: What opening a link, a socket, or something else than a folder on the way is refused with.
_NOT_REGULAR = (errno.ELOOP, errno.ENXIO, errno.ENOTDIR)
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def silent(count: int) -> None:
    """The default `Told`: says nothing."""


# --- writing --------------------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_member(path: Path, parts: Iterable[bytes | memoryview]) -> FileEntry:
    """Write a new file of these parts, one after the other,
    flushed to the disk. Raises `OSError`.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("xb", buffering=0) as file:
        for part in parts:
            rest = memoryview(part).cast("B")
            while len(rest):
                chunk = rest[: file.write(rest[:_CHUNK])]  # it may write less than it is given
                digest.update(chunk)
                size += len(chunk)
                rest = rest[len(chunk) :]
                # whoever waits for this thread waits for something that moves
                signs.sign(within="checkpoint")
        os.fsync(file.fileno())
    return FileEntry(bytes=size, sha256=digest.hexdigest())


def write_text(path: Path, text: str) -> FileEntry:
    """Write a small new file, flushed to the disk."""
    return write_member(path, [text.encode()])


def tensor_header(lengths: Mapping[str, int]) -> bytes:
    """Head of a safetensors file of flat fp32 tensors, elements by name,
    which follow it in this order.
    """
    entries = {}
    end = 0
    for name, length in lengths.items():
        start = end
        end = end + _FP32 * length
        entries[name] = {"dtype": "F32", "shape": [length], "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_LENGTH_BYTES)
    return len(text).to_bytes(_HEADER_LENGTH_BYTES, "little") + text


def finish(folder: Path, manifest: CheckpointManifest) -> None:
    """Write manifest.json and, when all else is on the disk, COMPLETE."""
    entry = write_text(folder / MANIFEST, manifest.model_dump_json())
    for directory in {(folder / name).parent for name in manifest.files}:
        sync(directory)
    write_text(folder / COMPLETE, entry.sha256 + "\n")
    sync(folder)


# --- reading --------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(folder: Path, name: str) -> Iterator[int]:
    """Descriptor of a regular file in `folder`, as `open_member` gives it, closed afterwards."""
    descriptor = open_member(folder, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_member(folder: Path, name: str) -> int:
    """Descriptor of a regular file in `folder`; no part of `name` may be a link, and nothing here
    waits.

    Raises `OSError` and `NotRegularError`.
    """
    *parents, last = name.split("/")
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            above = directory
            directory = os.open(parent, _FOLDER_FLAGS, dir_fd=above)
            os.close(above)
        descriptor = os.open(last, _FILE_FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise NotRegularError(
                f"{name} is a link or a special file, expected a regular file"
            ) from error
        raise
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(f"{name} is not a regular file")
    return descriptor


def content_problem(
    name: str, descriptor: int, expected: FileEntry, told: Told = silent
) -> str | None:
    """What is wrong with an open file: its size, or its checksum."""
    size = os.fstat(descriptor).st_size
    if size != expected.bytes:
        return f"{name} has {size} bytes instead of {expected.bytes}"
    if sha256_of(descriptor, size, told) != expected.sha256:
        return f"{name} is damaged: its SHA-256 differs from the manifest"
    return None


def file_problems(
    folder: Path, manifest: CheckpointManifest, names: Iterable[str], told: Told | None = silent
) -> list[str]:
    """One sentence for each of these files that is missing or differs from the manifest in size or
    checksum.

    `told` hears of the bytes that were read; with None only sizes are compared.
    """
    problems = []
    for name in names:
        problem = _file_problem(folder, name, manifest.files[name], told)
        if problem:
            problems.append(problem)
    return problems


def _file_problem(folder: Path, name: str, expected: FileEntry, told: Told | None) -> str | None:
    try:
        with opened(folder, name) as descriptor:
            if told:
                return content_problem(name, descriptor, expected, told)
            size = os.fstat(descriptor).st_size
            if size == expected.bytes:
                return None
            return f"{name} has {size} bytes instead of {expected.bytes}"
    except FileNotFoundError:
        return f"{name} is missing"
    except NotRegularError as error:
        return str(error)
    except OSError as error:
        return f"{name} cannot be read: {reason(error)}"


def read_member(folder: Path, name: str, expected: FileEntry, limit: int) -> bytes:
    """Content of a small file, which must be as the manifest says; raises `CheckpointError`."""
    try:
        if expected.bytes > limit:
            raise CheckpointError(
                f"{folder}: {name} has {expected.bytes:,} bytes, more than such a file can have"
            )
        with opened(folder, name) as descriptor:
            content = os.pread(descriptor, expected.bytes + 1, 0)
    except (NotRegularError, OSError) as error:
        raise CheckpointError(f"{folder}: {name} cannot be read: {error}") from error
    if len(content) != expected.bytes or hashlib.sha256(content).hexdigest() != expected.sha256:
        raise CheckpointError(f"{folder}: {name} is damaged: it is not as the manifest says")
    return content


class StoredTensor(NamedTuple):
    """Where a flat fp32 tensor lies in its file: first byte, and elements."""

    offset: int
    length: int


def stored_tensors(path: Path, descriptor: int) -> dict[str, StoredTensor]:
    """The tensors of an open safetensors file by name.

    Raises `CheckpointError` for anything but flat fp32 tensors that lie inside the file.
    """
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, _HEADER_LENGTH_BYTES, 0), "little")
    begin = _HEADER_LENGTH_BYTES + length
    if begin > size or length > _HEADER_LIMIT:
        raise CheckpointError(f"{path}: is no safetensors file: its header claims {length:,} bytes")
    try:
        header = json.loads(os.pread(descriptor, length, _HEADER_LENGTH_BYTES))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _stored(entry, begin, size) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: is no safetensors file of flat fp32 tensors: {error}"
        ) from error


def _stored(entry: Any, begin: int, size: int) -> StoredTensor:
    start, stop = entry["data_offsets"]
    (length,) = entry["shape"]
    if not all(isinstance(number, int) and number >= 0 for number in (start, stop, length)):
        raise ValueError("offsets and shapes must be whole numbers")
    if entry["dtype"] != "F32" or stop - start != _FP32 * length or begin + stop > size:
        raise ValueError(
            f"a tensor of {length} elements of {entry['dtype']} in bytes {start} to {stop}"
        )
    return StoredTensor(begin + start, length)


def read_range(descriptor: int, target: memoryview, offset: int) -> None:
    """Fill `target` with the bytes from `offset` on; raises `OSError` where there are fewer."""
    while len(target):
        count = os.preadv(descriptor, [target], offset)
        if not count:
            raise OSError("the file ends early")
        target = target[count:]
        offset = offset + count
