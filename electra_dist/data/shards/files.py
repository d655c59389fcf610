"""The files of a shards' folder: what proves that one is whole, and what is said when it is not.

A file that is gone, one that cannot be read and one that is damaged ask for different things; the
words are here, for whoever finds it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from electra_dist.errors import DataError
from electra_dist.files.checksums import sha256_of
from electra_dist.files.reading import NotRegularError, TooLargeError, open_regular
from electra_dist.files.writing import reason

CheckLevel = Literal["sizes", "checksums"]

GONE = (
    "missing; is its file system mounted? Bring it back, or point data.shards at another copy"
    " of the shards"
)
UNREADABLE = (
    "is its file system in order? The content may be whole; start again when it can be read"
)
REPLACE = (
    "copy it again from a whole copy, or build the shards again (the same input gives the"
    " same bytes)"
)
CHANGED = f"its content is not what was written (SHA-256 differs); {REPLACE}"
NOT_REGULAR = f"is a link or a special file, expected a regular file; {REPLACE}"


@dataclass(frozen=True)
class FileFacts:
    """A file in the shards folder, with what proves that it is whole."""

    name: str
    bytes: int
    sha256: str


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """A block that reads one file of the folder, in at most the bytes that the manifest says.

    Raises `DataError` with what to do where the file is gone, of another kind, larger or
    unreadable.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: {GONE}") from error
    except NotRegularError as error:
        raise DataError(f"{path}: {NOT_REGULAR}") from error
    except TooLargeError as error:
        raise DataError(f"{path}: is larger than the manifest says; {REPLACE}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}; {UNREADABLE}") from error


def file_problem(
    folder: Path,
    facts: FileFacts,
    level: CheckLevel,
    advance: Callable[[int], None] = lambda count: None,
) -> str | None:
    """What is wrong with one file and what to do about it, or None;
    tells `advance` the bytes that were checked.
    """
    path = folder / facts.name
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return NOT_REGULAR
        if found.st_size != facts.bytes:
            return f"has {found.st_size} bytes, the manifest says {facts.bytes}; {REPLACE}"
        if level == "sizes":
            advance(facts.bytes)
            return None
        with open_regular(path) as file:
            if sha256_of(file.fileno(), told=advance) != facts.sha256:
                return CHANGED
            return None
    except FileNotFoundError:
        return GONE
    except OSError as error:
        return f"cannot be read: {reason(error)}; {UNREADABLE}"


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file."""
    with open_regular(path) as file:
        return sha256_of(file.fileno())
