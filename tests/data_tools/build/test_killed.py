"""Building at size: killed at any moment, on several nodes, in parts: always the same bytes."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from data_tools.build import BuildOptions, add_to_shards, build_part, build_shards, merge_parts
from data_tools.inspect import verify_shards
from electra_dist.data.shards.manifest import SPLITS, Manifest, SplitName
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError
from tests.support.inline import play_inline
from tests.support.killing import killed_at

SMALL = BuildOptions(
    validation=0.15, piece_tokens=256, block_tokens=512, shard_blocks=8, part_bytes=20_000
)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


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


@pytest.fixture(autouse=True)
def inline(monkeypatch, request) -> None:
    """Tasks run in this process; `processes` marks the tests that need true workers."""
    if "processes" not in request.node.name:
        play_inline(monkeypatch)


@pytest.fixture(scope="module")
def texts(topic_texts) -> list[str]:
    return topic_texts[:80]


@pytest.fixture(scope="module")
def source(texts, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "texts.jsonl", texts)


@pytest.fixture(scope="module")
def whole(source, tokenizer_dir, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "shards"
    build_shards([source], tokenizer_dir, out, SMALL)
    return out


@pytest.mark.parametrize("nodes", [1, 3])
def test_parts_merge_to_the_bytes_of_one_node(whole, source, tokenizer_dir, tmp_path, nodes):
    options = SMALL
    parts = []
    for number in range(1, nodes + 1):
        parts.append(tmp_path / f"part-{number}")
        build_part([source], tokenizer_dir, parts[-1], number, nodes, options)
    random.Random(1).shuffle(parts)
    merge_parts(parts, tmp_path / "shards")
    assert files_of(tmp_path / "shards") == files_of(whole)
    assert not list(tmp_path.glob(".*"))


def test_a_corpus_is_added_beside_what_is_there(texts, source, tokenizer_dir, tmp_path):
    options = replace(SMALL, validation=0.45)  # enough documents, so that the fraction decides
    expected = build_shards([source], tokenizer_dir, tmp_path / "all", options).manifest
    cut = 3 * len(texts) // 4
    first = write(tmp_path / "first.jsonl", texts[:cut])
    shards = tmp_path / "shards"
    old = build_shards([first], tokenizer_dir, shards, options).manifest
    before = files_of(shards)
    stats = add_to_shards(shards, [source], options)
    after = files_of(shards)
    changed = {path for path, content in before.items() if after[path] != content}
    assert changed == {Path("manifest.json")}
    assert stats.manifest.fingerprint != old.fingerprint
    assert stats.duplicates == cut
    for split in SPLITS:
        assert sorted(documents(stats.manifest, split)) == sorted(documents(expected, split))
    assert stats.manifest.token_counts.tolist() == expected.token_counts.tolist()
    assert verify_shards(shards).ok
    with pytest.raises(DataError, match=r"nothing to add: of .* are in the shards already"):
        add_to_shards(shards, [source], SMALL)
    assert files_of(shards) == after
    assert not list(tmp_path.glob(".*"))


# --- killed ---------------------------------------------------------------------------------------


def goes_on(act, out: Path, events: list[int]) -> int:
    """Kill `act` at each of these changes to the file system in turn, then let it end; how often it
    was killed.
    """
    killed = 0
    for event in events:
        if (out / "manifest.json").exists():
            break
        killed += killed_at(event, out.parent, act)
        if not (out / "manifest.json").exists():
            assert not out.exists()
    return killed


@settings(
    max_examples=6,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    events=st.lists(st.integers(0, 120), min_size=1, max_size=3),
    nodes=st.integers(1, 3),
)
def test_killed_anywhere_the_same_command_gives_the_same_bytes(
    whole, source, tokenizer_dir, tmp_path_factory, monkeypatch, events, nodes
):
    play_inline(monkeypatch)
    folder = tmp_path_factory.mktemp("killed")
    out = folder / "shards"
    if nodes == 1:

        def act() -> object:
            return build_shards([source], tokenizer_dir, out, SMALL)
    else:
        parts = []
        for number in range(1, nodes + 1):
            part = folder / f"part-{number}"

            def make(part: Path = part, number: int = number) -> object:
                return build_part([source], tokenizer_dir, part, number, nodes, SMALL)

            killed_at(events[0], folder, make)
            if not (part / "part.json").exists():
                make()
            parts.append(part)

        def act() -> object:
            return merge_parts(parts, out)

    goes_on(act, out, events)
    if not (out / "manifest.json").exists() or list(folder.glob(".shards*")):
        act()
    assert files_of(out) == files_of(whole)
    assert not list(folder.glob(".*"))


def test_an_interrupted_addition_leaves_the_shards_as_they_were(
    whole, texts, tokenizer_dir, tmp_path
):
    new = write(tmp_path / "new.jsonl", [f"{text} again" for text in texts[:20]])
    once = tmp_path / "once"
    shutil.copytree(whole, once)
    add_to_shards(once, [new], SMALL)
    for event in range(3, 90, 13):
        shards = tmp_path / f"shards-{event}"
        shutil.copytree(whole, shards)

        def act(shards: Path = shards) -> object:
            return add_to_shards(shards, [new], SMALL)

        was_killed = killed_at(event, shards.parent, act)
        now = files_of(shards)
        assert now[Path("manifest.json")] in (
            (whole / "manifest.json").read_bytes(),
            (once / "manifest.json").read_bytes(),
        )
        assert verify_shards(shards).ok or was_killed
        if was_killed:
            act()
        assert files_of(shards) == files_of(once)
    assert not list(tmp_path.glob(".*"))
