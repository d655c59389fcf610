"""Building: the same bytes for any number of workers, every document once, whole or absent."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_tools.build import BuildOptions, build_shards
from data_tools.clean import normalise
from data_tools.inspect import inspect_shards, verify_shards
from data_tools.spill import KeyRange, SpillWriter, gather
from data_tools.tokenizer import load_tokenizer
from electra_dist.data.shards.manifest import SPLITS, TRAIN, VALIDATION, Manifest, SplitName
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError

SMALL = BuildOptions(
    validation=0.15, piece_tokens=0, block_tokens=1024, shard_blocks=16, part_bytes=50_000
)


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def documents(manifest: Manifest, split: SplitName) -> list[list[int]]:
    """Documents of a split in their order; long ones in the pieces that blocks cut them into."""
    reader = BlockReader(manifest, split)
    found = []
    for number in range(len(reader)):
        block = reader.read(number)
        ends = np.cumsum(block.lengths)
        found += [
            block.tokens[end - length : end].tolist()
            for end, length in zip(ends, block.lengths, strict=True)
        ]
    return found


@pytest.fixture(scope="module")
def built(topics_file, tokenizer_dir, tmp_path_factory) -> Manifest:
    return build_shards(
        [topics_file], tokenizer_dir, tmp_path_factory.mktemp("built") / "shards", SMALL
    ).manifest


def test_the_bytes_do_not_depend_on_the_number_of_workers(
    built, topics_file, tokenizer_dir, tmp_path
):
    expected = {
        path.relative_to(built.path): path.read_bytes()
        for path in built.path.rglob("*")
        if path.is_file()
    }
    assert len(built.facts.train.shards) >= 3
    for workers in (2, 3):
        out = tmp_path / f"shards-{workers}"
        build_shards([topics_file], tokenizer_dir, out, replace(SMALL, workers=workers))
        assert expected == {
            path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()
        }


def test_every_document_is_in_exactly_one_split_once(built, topic_texts, tokenizer_dir):
    ids = load_tokenizer(tokenizer_dir).encode_batch([normalise(text) for text in topic_texts])
    expected = sorted(
        document[start : start + 1024].tolist()
        for document in ids
        for start in range(0, len(document), 1024)
    )
    train, validation = documents(built, TRAIN), documents(built, VALIDATION)
    assert sorted(train + validation) == expected
    assert 0.05 * len(expected) < len(validation) < 0.3 * len(expected)


def test_documents_are_shuffled_over_the_whole_corpus_by_the_seed(
    built, topics_file, tokenizer_dir, tmp_path
):
    stats = build_shards([topics_file], tokenizer_dir, tmp_path / "other", replace(SMALL, seed=7))
    first, second = documents(built, TRAIN), documents(stats.manifest, TRAIN)
    assert sorted(first) == sorted(second)  # the split does not depend on the seed
    assert first != second
    assert documents(built, VALIDATION) != documents(stats.manifest, VALIDATION)
    assert built.fingerprint != stats.manifest.fingerprint


def test_the_order_of_input_files_does_not_matter(topic_texts, tokenizer_dir, tmp_path):
    half = len(topic_texts) // 2
    one, two = write_jsonl(tmp_path / "one.jsonl", topic_texts[:half]), tmp_path / "two.jsonl.gz"
    write_jsonl(tmp_path / "two.jsonl", topic_texts[half:])
    two.write_bytes(gzip.compress((tmp_path / "two.jsonl").read_bytes()))
    first = build_shards([one, two], tokenizer_dir, tmp_path / "first", SMALL)
    second = build_shards(
        [two, one], tokenizer_dir, tmp_path / "second", replace(SMALL, part_bytes=9_000)
    )
    assert first.manifest.fingerprint == second.manifest.fingerprint


def test_blocks_are_nearly_full_and_never_overfull(built):
    reader = BlockReader(built, TRAIN)
    sizes = [len(reader.read(block).tokens) for block in range(len(reader))]
    assert max(sizes) <= 1024
    assert np.mean(sizes) > 500


def test_duplicates_short_and_empty_documents_are_left_out_and_counted(tokenizer_dir, tmp_path):
    texts = [
        "the same document here",
        "  the same document here\r\n",
        "another document",
        "tiny",
        "",
        "\u200b",
    ]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    stats = build_shards(
        [source], tokenizer_dir, tmp_path / "out", BuildOptions(validation=0, min_characters=5)
    )
    assert (stats.documents, stats.duplicates, stats.too_short) == (6, 1, 3)
    assert stats.manifest.facts.train.documents == 2
    kept = build_shards(
        [source],
        tokenizer_dir,
        tmp_path / "kept",
        BuildOptions(validation=0, min_characters=1, deduplicate=False),
    )
    assert kept.duplicates == 0
    assert kept.manifest.facts.train.documents + kept.without_tokens == 5
    assert json.dumps(stats.to_dict())


def test_vocabularies_above_65536_ids_take_four_bytes(tokenizer_dir, topic_texts, tmp_path):
    content = json.loads((tokenizer_dir / "tokenizer.json").read_text(encoding="utf-8"))
    size = len(content["model"]["vocab"])
    content["model"]["vocab"].update({f"filler{number}": size + number for number in range(70_000)})
    # The most frequent word moves above the limit: an id that two bytes would cut.
    vocabulary = content["model"]["vocab"]
    vocabulary["\u2581the"], vocabulary["filler69999"] = (
        vocabulary["filler69999"],
        vocabulary["\u2581the"],
    )
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    source = write_jsonl(tmp_path / "a.jsonl", topic_texts[:40])
    options = BuildOptions(validation=0, piece_tokens=0)
    stats = build_shards([source], tmp_path / "large", tmp_path / "out", options)
    assert stats.manifest.facts.token_bytes == 4
    reader = BlockReader(stats.manifest, TRAIN)
    assert reader.read(0).tokens.dtype == np.uint32
    ids = load_tokenizer(tmp_path / "large").encode_batch(
        [normalise(text) for text in topic_texts[:40]]
    )
    assert sorted(documents(stats.manifest, TRAIN)) == sorted(document.tolist() for document in ids)
    assert stats.manifest.token_counts[size + 69_999] > 0
    assert verify_shards(tmp_path / "out").ok


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"text": ""}\n{"text": "  "}\n', BuildOptions(), "no documents: 2 were read"),
        (
            '{"text": "one document"}\n',
            BuildOptions(validation=0.01),
            "none of the 1 documents fall into .* validation",
        ),
        ('{"text": "ok"}\n{"no": 1}\n', BuildOptions(), "line 2: expected the document"),
        ('{"text": "ok"}\n', BuildOptions(validation=1.0), "`validation` 1.0: expected a fraction"),
        ('{"text": "ok"}\n', BuildOptions(workers=0), "`workers` 0"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing_behind(
    content, options, message, tokenizer_dir, tmp_path
):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        build_shards([tmp_path / "a.jsonl"], tokenizer_dir, tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_output_folder_that_holds_something_is_not_touched(
    built, topics_file, tokenizer_dir, tmp_path
):
    with pytest.raises(DataError, match="holds shards already"):
        build_shards([topics_file], tokenizer_dir, built.path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match="holds something else already"):
        build_shards([topics_file], tokenizer_dir, tmp_path)
    with pytest.raises(DataError, match="is a file"):
        build_shards([topics_file], tokenizer_dir, tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("ranges", [1, 2, 7])
def test_gathering_all_ranges_sorts_everything_by_key(tmp_path, monkeypatch, ranges):
    monkeypatch.setattr("data_tools.spill.SPILL_TOKENS", 50)
    generator = np.random.default_rng(0)
    dtype = np.dtype("<u2")
    keys = [generator.bytes(16) for _ in range(60)]
    keys += [keys[3], keys[3], b"\0" * 16, b"\xff" * 16]
    texts = {key: np.arange(5, 6 + number, dtype=np.uint32) for number, key in enumerate(keys)}
    spills = []
    for part in range(3):
        writer = SpillWriter(tmp_path, f"part-{part}", dtype)
        for key in keys[part::3]:
            writer.add(key, texts[key])
        spills += writer.close()
    assert len(spills) > 3
    gathered = [
        gather(spills, KeyRange(number, ranges), dtype, drop_equal_keys=True)
        for number in range(ranges)
    ]
    found = [
        document.tolist() for documents_of_range, _ in gathered for document in documents_of_range
    ]
    assert found == [texts[key].tolist() for key in sorted(set(keys))]
    assert sum(dropped for _, dropped in gathered) == 2


def test_inspect_reports_what_is_there(built):
    report = inspect_shards(built.path, row_lengths=(64, 128), samples=2)
    lengths = [len(document) for document in documents(built, TRAIN)]
    train = report.splits[TRAIN]
    assert (train.documents, train.tokens, train.blocks) == (
        len(lengths),
        sum(lengths),
        built.facts.train.blocks,
    )
    assert train.length_quantiles["0"] == min(lengths)
    assert train.length_quantiles["1"] == max(lengths)
    assert sum(train.length_histogram.values()) == len(lengths)
    assert train.length_histogram[64] == sum(64 <= length < 128 for length in lengths)
    assert len(report.samples) == 2
    assert all(0 <= packing.padding < 0.2 for packing in report.packing)
    assert report.unigram_entropy == built.unigram_entropy()
    assert json.dumps(report.to_dict())
    assert json.dumps(verify_shards(built.path).to_dict())
    for split in SPLITS:
        assert report.splits[split].shards == len(built.split(split).shards)
