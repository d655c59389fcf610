"""Shards that a command names, in a folder or at a URL.

Comes in: a path or a URL. Goes out: the checked manifest, for a `with` block. Commands have no
`data.cache`: manifest, tables and tokenizer of a URL lie in a temporary folder while the block
runs, and no block of the shards is kept.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from electra_dist.data.shards.manifest import CacheSettings, Manifest
from electra_dist.files.urls import is_url


@contextlib.contextmanager
def opened(shards: Path | str) -> Iterator[Manifest]:
    """The manifest of `shards`; raises what `Manifest.load` raises."""
    if not is_url(shards):
        yield Manifest.load(shards)
        return
    with tempfile.TemporaryDirectory(prefix="electra-dist-") as folder:
        yield Manifest.load(shards, CacheSettings(Path(folder), bytes=0))
