"""A small encoder with a real tokenizer: as `electra-dist export` writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.toy_task import random_model


@pytest.fixture(scope="session")
def encoder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With random weights, two layers."""
    folder = tmp_path_factory.mktemp("encoder") / "discriminator"
    return random_model(folder, "ElectraForPreTraining", tiny_shards.parent / "tokenizer")
