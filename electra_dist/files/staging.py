"""A folder that is whole or absent: made under a temporary name, renamed when it is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from electra_dist.errors import UserError


def check_folder_can_be_made(out: Path) -> None:
    """Make the folder that `out` will lie in;
    raises `UserError` where nothing can be written there, or `out` is where this process runs.
    """
    if Path.cwd().is_relative_to(out.resolve()):
        raise UserError(
            f"`out` {out}: is the folder that this command runs in, or one above it, and cannot be"
            " replaced; give a folder in it"
        )
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"`out` {out}: {out.parent} cannot be made ({error.strerror}); give another place"
        ) from error
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"`out` {out}: {out.parent} cannot be written to; give another place")


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """`whole_folder` of a user's `out`, or of the folder that it links to; raises `UserError` where
    nothing can be made there.
    """
    check_folder_can_be_made(out)
    with whole_folder(out.resolve()) as folder:
        yield folder


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder next to `out` that takes its place when the block ends well and vanishes
    when it does not; a folder that was there is replaced. Raises `OSError`.
    """
    folder = out.parent / f".{out.name}.{os.getpid()}.tmp"
    old = out.parent / f".{out.name}.{os.getpid()}.old"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        if out.exists():
            out.rename(old)
        try:
            folder.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
