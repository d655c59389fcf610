"""Building at size: killed at any moment, on several nodes, in parts: always the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data_tools.build import BuildOptions, add_to_shards, build_part, build_shards, merge_parts
from data_tools.inspect import verify_shards
from electra_dist.data.shards.manifest import SPLITS, TRAIN, VALIDATION, Manifest, SplitName
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError, LockedError, StorageError

SMALL = BuildOptions(
    validation=0.15, piece_tokens=256, block_tokens=1024, shard_blocks=8, part_bytes=50_000
)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def documents(manifest: Manifest, split: SplitName) -> list[tuple[int, ...]]:
    found = []
    reader = BlockReader(manifest, split)
    for number in range(len(reader)):
        block = reader.read(number)
        end = 0
        for length in block.lengths.tolist():
            end += length
            found.append(tuple(block.tokens[end - length : end].tolist()))
    return found


@pytest.fixture(scope="module")
def whole(topics_file, tokenizer_dir, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "shards"
    build_shards([topics_file], tokenizer_dir, out, SMALL)
    return out


@pytest.mark.parametrize(("nodes", "workers"), [(1, 1), (3, 2)])
def test_parts_merge_to_the_bytes_of_one_node(
    whole, topics_file, tokenizer_dir, tmp_path, nodes, workers
):
    options = replace(SMALL, workers=workers)
    parts = []
    for number in range(1, nodes + 1):
        parts.append(tmp_path / f"part-{number}")
        build_part([topics_file], tokenizer_dir, parts[-1], number, nodes, options)
    random.Random(1).shuffle(parts)
    merge_parts(parts, tmp_path / "shards", workers)
    assert files_of(tmp_path / "shards") == files_of(whole)
    assert not list(tmp_path.glob(".*"))


def test_a_corpus_is_added_beside_what_is_there(
    topic_texts, topics_file, tokenizer_dir, tmp_path
):
    options = replace(SMALL, validation=0.3)  # enough documents, so that the fraction decides
    expected = build_shards([topics_file], tokenizer_dir, tmp_path / "all", options).manifest
    cut = 2 * len(topic_texts) // 3
    first = tmp_path / "first.jsonl"
    first.write_text("".join(json.dumps({"text": text}) + "\n" for text in topic_texts[:cut]))
    shards = tmp_path / "shards"
    old = build_shards([first], tokenizer_dir, shards, options).manifest
    before = files_of(shards)
    stats = add_to_shards(shards, [topics_file], replace(options, workers=2))
    after = files_of(shards)
    changed = {path for path, content in before.items() if after[path] != content}
    assert changed == {Path("manifest.json")}
    assert stats.manifest.fingerprint != old.fingerprint
    assert stats.duplicates == cut
    for split in SPLITS:
        assert sorted(documents(stats.manifest, split)) == sorted(documents(expected, split))
    assert stats.manifest.token_counts.tolist() == expected.token_counts.tolist()
    assert verify_shards(shards).ok
    with pytest.raises(DataError, match="nothing to add: of .* are in the shards already"):
        add_to_shards(shards, [topics_file], SMALL)
    assert files_of(shards) == after
    assert not list(tmp_path.glob(".*"))
