"""Small files that must not be lost: atomic writing.

Writing leaves the old content or the new, never a part and no leftovers; what the file system
refuses becomes one `StorageError`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_dist.errors import StorageError

_REASONS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


@contextlib.contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """A block that writes `what` at `path`:
    what the file system refuses becomes a `StorageError` that says so.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: {what} cannot be written: {reason(error)}{advice(error)}"
        ) from error


def reason(error: OSError) -> str:
    """Why the file system refused, in words."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def advice(error: OSError) -> str:
    """What to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "; make room (or raise the quota), then start again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "; check who may write there, or set run.dir to another place"
    return "; run.dir must lie where all nodes can write"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name next to `path` for a block that writes a file.

    When the block ends well, the file is forced to the disk and takes the place of `path`. When it
    does not, the file is removed and what was at `path` stays. Raises `OSError`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that `path` holds the old content or the new, never a part: temporary name,
    fsync, rename.

    Raises `OSError`; the temporary file is gone then.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_new(path: Path, content: bytes) -> None:
    """Make the file `path`, which must not exist, with `content` safely on the disk;
    raises `OSError`.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole_new(path: Path, text: str) -> None:
    """Write the new file `path`, whole or absent; what is there already is left as it is.

    Raises `FileExistsError` where something is there, `OSError` where it cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            temporary.rename(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def open_to_readers(path: Path) -> None:
    """Give `path` the permissions that any new file gets here;
    safetensors makes its files private to their owner.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}.mode")
    probe.touch()
    path.chmod(probe.stat().st_mode)
    probe.unlink()


def write_json(path: Path, content: Any) -> None:
    """`write_atomically` of indented JSON."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
