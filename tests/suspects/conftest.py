"""A pair of networks, and a browser without a screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pairs import write_pair


@pytest.fixture(scope="session")
def pair(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """discriminator/ and generator/ of 96 positions."""
    return write_pair(tmp_path_factory.mktemp("pair"), tiny_shards.parent / "tokenizer")
