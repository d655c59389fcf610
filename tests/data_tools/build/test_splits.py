"""Held-out documents: the rule of `splits`, by brute force, and whatever the workers and parts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.build import BuildOptions, build_part, build_shards, merge_parts
from data_tools.build.splits import held_out_below, lowest
from data_tools.clean import digest, normalise
from data_tools.tokenizer import load_tokenizer
from electra_dist.cli.main import main
from electra_dist.data.shards.manifest import VALIDATION, Manifest
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError
from tests.support.inline import play_inline


def expected_of(hashes: list[int], validation: float) -> set[int]:
    """The rule in the words of the documentation."""
    different = sorted(set(hashes))
    below = {number for number in different if number / 2**48 < validation}
    least = min(20, len(different) // 2)
    if validation == 0 or len(below) >= least:
        return below
    return set(different[:least])


HASHES = st.lists(st.integers(0, 2**48 - 1), max_size=120)


@given(parts=st.lists(HASHES, min_size=1, max_size=4), validation=st.sampled_from([0, 0.01, 0.3]))
def test_the_rule_needs_the_lowest_of_each_part_only(parts, validation):
    together: list[int] = []
    for part in parts:
        together = lowest([*together, *lowest(part)])
    bound = held_out_below(validation, together)
    everything = [number for part in parts for number in part]
    assert {number for number in everything if number < bound} == expected_of(
        everything, validation
    )


def split_hash(text: str) -> int:
    name = digest(normalise(text))
    return int.from_bytes(hashlib.blake2b(name, digest_size=6, person=b"split").digest(), "little")


def held_out(manifest: Manifest) -> set[tuple[int, ...]]:
    found = set()
    reader = BlockReader(manifest, VALIDATION)
    for number in range(len(reader)):
        block = reader.read(number)
        end = 0
        for length in block.lengths.tolist():
            end += length
            found.add(tuple(block.tokens[end - length : end].tolist()))
    return found


@pytest.mark.parametrize(("count", "validation"), [(11, 0.01), (90, 0.01), (90, 0.5), (90, 0.0)])
def test_shards_hold_out_what_the_rule_says(
    count, validation, tokenizer_dir, tmp_path, monkeypatch
):
    play_inline(monkeypatch)
    texts = [f"document number {number} of this corpus" for number in range(count)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts + texts[:5]))
    chosen = expected_of([split_hash(text) for text in texts], validation)
    expected = {
        tuple(ids.tolist())
        for text, ids in zip(texts, load_tokenizer(tokenizer_dir).encode_batch(texts), strict=True)
        if split_hash(text) in chosen
    }
    options = BuildOptions(validation=validation, part_bytes=1000)
    stats = build_shards([source], tokenizer_dir, tmp_path / "shards", options)
    assert held_out(stats.manifest) == expected
    assert stats.manifest.facts.train.documents == count - len(expected)
    assert stats.duplicates == 5
    parts = [tmp_path / "1", tmp_path / "2"]
    for number, part in enumerate(parts, start=1):
        build_part([source], tokenizer_dir, part, number, 2, options)
    merged = merge_parts(parts, tmp_path / "merged").manifest
    assert merged.fingerprint == stats.manifest.fingerprint


def test_one_document_cannot_be_split(tokenizer_dir, tmp_path, monkeypatch):
    play_inline(monkeypatch)
    source = tmp_path / "a.txt"
    source.write_text("one document\n")
    with pytest.raises(DataError, match="none of the 1 documents fall into the split validation"):
        build_shards([source], tokenizer_dir, tmp_path / "shards")
    stats = build_shards([source], tokenizer_dir, tmp_path / "s", BuildOptions(validation=0))
    assert stats.manifest.facts.train.documents == 1


# --- the commands ---------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["data", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_commands_hold_out_by_default_and_warn_without(
    tokenizer_dir, topics_file, tmp_path, monkeypatch, capsys
):
    play_inline(monkeypatch)
    source: tuple[object, ...] = ("--input", topics_file, "--tokenizer", tokenizer_dir)
    status, out, err = run(capsys, "build", *source, "--out", tmp_path / "a", "--json")
    assert (status, json.loads(out)["validation"]["documents"] >= 20) == (0, True)
    assert "warning" not in err
    words = (*source, "--out", tmp_path / "b", "--validation", "0", "--json")
    status, out, err = run(capsys, "build", *words)
    assert (status, json.loads(out)["validation"]["documents"]) == (0, 0)
    assert "warning: --validation 0 holds nothing out: a run on these shards can be neither" in err


def test_the_commands_for_parts_and_additions(
    tokenizer_dir, topics_file, tmp_path, monkeypatch, capsys
):
    play_inline(monkeypatch)
    source: tuple[object, ...] = ("--input", topics_file, "--tokenizer", tokenizer_dir)
    documents = 0
    for part in (1, 2):  # one task: the second part is empty, which is no error
        words = (*source, "--out", tmp_path / str(part), "--part", f"{part}/2", "--json")
        status, out, _ = run(capsys, "build", *words)
        facts = json.loads(out)
        assert (status, facts["part"], facts["parts"]) == (0, part, 2)
        documents += facts["documents"]
    assert documents == len(topics_file.read_text().splitlines())
    shards = tmp_path / "shards"
    status, out, _ = run(capsys, "merge", tmp_path / "1", tmp_path / "2", "--out", shards, "--json")
    assert status == 0
    fingerprint = json.loads(out)["fingerprint"]
    new = tmp_path / "new.txt"
    new.write_text("a document that is new\n")
    status, out, _ = run(capsys, "add", shards, "--input", new, topics_file, "--json")
    assert status == 0
    assert json.loads(out)["fingerprint"] == Manifest.load(shards).fingerprint != fingerprint
    status, _, err = run(capsys, "build", *source, "--out", tmp_path / "x", "--part", "3/2")
    assert (status, err.startswith("error: --part 3/2: expected I/N with 1 <= I <= N")) == (2, True)
    with pytest.raises(SystemExit):
        main(["data", "build", *map(str, source), "--out", "x", "--part", "three"])
    assert "'three': expected I/N, such as 3/8" in capsys.readouterr().err
    assert not Path("x").exists()
