"""What the rooms of the library share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

DeviceName = Literal["cpu", "cuda"]


def as_path(given: str | Path | None) -> Path | None:
    """A path where one is given."""
    if given is None:
        return None
    return Path(given)


@contextlib.contextmanager
def output(verbose: bool) -> Iterator[None]:
    """A block whose standard output is dropped unless `verbose`."""
    if verbose:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
