"""Sources: shares of weights and of temperatures, one tokenizer, one name for data and shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.build import BuildOptions, build_shards
from data_tools.tokenizer import train_tokenizer
from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.shards.manifest import TRAIN, Manifest
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.sources import WHOLE, has_validation, open_data, shares_of
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import held_out, validation_rows
from electra_dist.errors import DataError


@pytest.fixture(scope="module")
def folders(topics_file: Path, tokenizer_dir: Path, tmp_path_factory: Any) -> tuple[Path, Path]:
    """Two corpora of one tokenizer: even and odd lines of the topics, the second one smaller."""
    folder = tmp_path_factory.mktemp("sources")
    lines = topics_file.read_text(encoding="utf-8").splitlines(keepends=True)
    found = []
    for name, own in (("large", lines[::2]), ("small", lines[1::6])):
        text = folder / f"{name}.jsonl"
        text.write_text("".join(own), encoding="utf-8")
        options = BuildOptions(validation=0.1, block_tokens=2048, shard_blocks=32)
        build_shards([text], tokenizer_dir, folder / name / "shards", options)
        found.append(folder / name / "shards")
    return found[0], found[1]


def config_of(*sources: dict[str, Any], **data: Any) -> Config:
    return configuration.build(
        {
            "data": {"sources": [*sources], "row_length": 64, "streams": 4, **data},
            "model": {"preset": "tiny"},
            "train": {"steps": 40, "global_rows": 8, "micro_rows": 2},
            "optim": {"warmup_steps": 0},
        }
    )


def two(folders: tuple[Path, Path], weights: tuple[float, float], **data: Any) -> Config:
    large, small = ({"shards": str(f), "weight": w} for f, w in zip(folders, weights, strict=True))
    return config_of(large, small, **data)


def test_weights_are_shares_and_names_are_those_of_the_folders(
    folders: tuple[Path, Path],
) -> None:
    data = open_data(two(folders, (3, 1)))
    assert [source.name for source in data.sources] == ["large", "small"]
    assert [source.share for source in data.sources] == [750_000_000, 250_000_000]
    assert data.described == "large 75.0%, small 25.0%"


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.0])
def test_a_temperature_makes_the_shares_of_the_tokens(temperature: float) -> None:
    tokens = [10**13, 3 * 10**9, 77_777]
    sources = [{"shards": name} for name in "abc"]
    shares = shares_of(config_of(*sources, temperature=temperature).data, tokens)
    weights = np.array(tokens, np.float64) ** temperature
    np.testing.assert_allclose(
        shares, np.maximum(WHOLE * weights / weights.sum(), 1), rtol=1e-6, atol=0.5
    )


def test_without_weights_the_corpora_keep_their_proportions(folders: tuple[Path, Path]) -> None:
    sources = [{"shards": str(folder)} for folder in folders]
    data = open_data(config_of(*sources))
    tokens = [manifest.facts.train.tokens for manifest in data.manifests]
    for source, count in zip(data.sources, tokens, strict=True):
        assert source.share / WHOLE == pytest.approx(count / sum(tokens), abs=1e-8)


def test_one_name_for_the_shards_their_order_and_their_shares(folders: tuple[Path, Path]) -> None:
    names = [
        open_data(two(folders, (3, 1))).fingerprint,
        open_data(two(folders, (6, 2))).fingerprint,  # the same
        open_data(two(folders, (3, 1.001))).fingerprint,
        open_data(two((folders[1], folders[0]), (3, 1))).fingerprint,
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    alone = config_of({"shards": str(folders[0])})
    assert open_data(alone).fingerprint == Manifest.load(folders[0]).fingerprint


def test_counts_and_lengths_are_those_of_the_mixture(folders: tuple[Path, Path]) -> None:
    """Against drawing documents of each source until the shares are right."""
    data = open_data(two(folders, (1, 4)))
    counts = np.zeros(data.vocab_size)
    documents = 0.0
    for source in data.sources:
        reader = BlockReader(source.manifest, TRAIN)
        blocks = [reader.read(number) for number in range(len(reader))]
        tokens = np.concatenate([block.tokens for block in blocks])
        share = source.share / WHOLE / len(tokens)
        counts += np.bincount(tokens, minlength=len(counts)) * share
        documents += sum(len(block.lengths) for block in blocks) * share
    np.testing.assert_allclose(data.token_counts, counts * data.tokens, atol=1)
    assert data.mean_document == int(1 / documents) + 2
    entropy = -np.sum(counts[counts > 0] * np.log(counts[counts > 0]))
    assert data.unigram_entropy() == pytest.approx(entropy, abs=1e-3)


def test_sources_of_two_tokenizers_are_one_clear_error(
    folders: tuple[Path, Path], topics_file: Path, tmp_path: Path
) -> None:
    train_tokenizer([topics_file], 600, tmp_path / "tokenizer")
    build_shards([topics_file], tmp_path / "tokenizer", tmp_path / "foreign")
    config = two((folders[0], tmp_path / "foreign"), (1, 1))
    with pytest.raises(DataError, match=r"foreign \(foreign\) is encoded with another tokenizer"):
        open_data(config)
    with pytest.raises(DataError, match=r"nowhere: no manifest\.json there"):
        open_data(two((folders[0], tmp_path / "nowhere"), (1, 1)))


def test_each_source_gives_its_share_of_the_held_out_rows(folders: tuple[Path, Path]) -> None:
    config = two(folders, (3, 1))
    data = open_data(config)
    row_format = RowFormat.of(config)
    assert has_validation(data)
    parts = held_out(data, row_format, 16)
    assert [(part.source, len(part.rows.keys)) for part in parts] == [("large", 12), ("small", 4)]
    whole = validation_rows(data, row_format, 16)
    assert whole is not None
    assert len(whole.keys) == 16
    one = validation_rows(data, row_format, 1)  # at least one of each
    assert one is not None
    assert len(one.keys) == 2


def test_the_configuration_with_sources_loads_again(folders: tuple[Path, Path]) -> None:
    config = two(folders, (3, 1))
    text = configuration.resolved_yaml(config)
    assert configuration.build(configuration.parse_yaml(text, "again")) == config
    assert json.loads(json.dumps(config.model_dump(mode="json")))["data"]["shards"] is None
