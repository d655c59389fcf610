"""A small encoder with a real tokenizer, and a task that a network of this size can learn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.toy_task import random_model, sentences, write_table


@pytest.fixture(scope="session")
def encoder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `electra-dist export` writes it, with random weights."""
    folder = tmp_path_factory.mktemp("encoder") / "discriminator"
    return random_model(folder, "ElectraForPreTraining", tiny_shards.parent / "tokenizer")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.tsv and dev.tsv of the learnable task."""
    folder = tmp_path_factory.mktemp("labelled")
    write_table(folder / "train.tsv", sentences(400, seed=1))
    write_table(folder / "dev.tsv", sentences(100, seed=2))
    return folder
