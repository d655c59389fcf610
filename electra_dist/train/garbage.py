"""Python's garbage collection during training: at the same steps on all ranks, instead of whenever
one of them likes, while the others wait.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_by_hand() -> Iterator[None]:
    """A block in which garbage is collected only where somebody asks for it (`Logbook.write`)."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()
