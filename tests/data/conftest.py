"""Small shards of real text for the tests of the loader:
the topics of pydoc, in blocks of 2,048 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from data_tools.build import BuildOptions, build_shards
from data_tools.tokenizer import train_tokenizer
from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData

ConfigFactory = Callable[..., Config]


@pytest.fixture(scope="session")
def topics_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One .jsonl with the topics of pydoc, long ones cut into paragraphs so that lengths vary."""
    path = tmp_path_factory.mktemp("topics") / "topics.jsonl"
    texts = [part for text in topics.values() for part in text.split("\n\n\n")]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer_dir(topics_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer([topics_file], 1024, path)
    return path


@pytest.fixture(scope="session")
def manifest(
    topics_file: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Manifest:
    out = tmp_path_factory.mktemp("shards") / "shards"
    options = BuildOptions(validation=0.1, block_tokens=2048, shard_blocks=32)
    return build_shards([topics_file], tokenizer_dir, out, options).manifest


@pytest.fixture(scope="session")
def data(manifest: Manifest) -> RunData:
    """The small shards as the only source of a run."""
    return RunData.alone(manifest)


@pytest.fixture(scope="session")
def make_config(manifest: Manifest) -> ConfigFactory:
    """A configuration of the small shards;
    keyword arguments are sections that win over the defaults here.
    """

    def make(**sections: dict[str, Any]) -> Config:
        tree: dict[str, dict[str, Any]] = {
            "data": {"shards": str(manifest.path), "row_length": 64, "streams": 4},
            "model": {"preset": "tiny"},
            "train": {"steps": 40, "global_rows": 8, "micro_rows": 2},
            "optim": {"warmup_steps": 0},
        }
        for name, values in sections.items():
            tree[name] = {**tree.get(name, {}), **values}
        return configuration.build(tree)

    return make
