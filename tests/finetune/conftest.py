"""A small encoder with a real tokenizer, and a task that a network of this size can learn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_task import sentences, write_table


@pytest.fixture(scope="session")
def encoder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `electra-dist export` writes it: two layers of 64, random weights."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("encoder") / "discriminator"
    torch.manual_seed(0)
    config = transformers.ElectraConfig(
        vocab_size=512,
        embedding_size=32,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=96,
    )
    transformers.ElectraForPreTraining(config).save_pretrained(folder)
    for file in (tiny_shards.parent / "tokenizer").iterdir():
        if file.name.startswith("tokenizer"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.tsv and dev.tsv of the learnable task."""
    folder = tmp_path_factory.mktemp("labelled")
    write_table(folder / "train.tsv", sentences(400, seed=1))
    write_table(folder / "dev.tsv", sentences(100, seed=2))
    return folder
