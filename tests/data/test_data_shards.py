"""Shards: readable by plain WebDataset, and every kind of damage is found."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_tools.inspect import inspect_shards, verify_shards
from electra_dist.data.manifest import MANIFEST_FILE, SPLITS, TRAIN, Manifest
from electra_dist.data.shards import BlockReader
from electra_dist.errors import DataError


@pytest.fixture
def copied(manifest: Manifest, tmp_path: Path) -> Path:
    """A copy of the small shards to do damage to."""
    shutil.copytree(manifest.path, tmp_path / "shards")
    return tmp_path / "shards"


def read_everything(path: Path) -> None:
    manifest = Manifest.load(path)
    for split in SPLITS:
        reader = BlockReader(manifest, split)
        for block in range(len(reader)):
            reader.read(block)


def first_tar(path: Path) -> Path:
    return sorted(path.glob("train-*.tar"))[0]


def members(tar: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(tar) as archive:
        return archive.getmembers()


def test_plain_webdataset_reads_the_same_tokens(manifest):
    assert len(manifest.facts.train.shards) > 1
    for split in SPLITS:
        urls = [str(manifest.path / shard.tar.name) for shard in manifest.split(split).shards]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
        reader = BlockReader(manifest, split)
        assert len(samples) == len(reader) == manifest.split(split).blocks
        for number, sample in enumerate(samples):
            block = reader.read(number)
            np.testing.assert_array_equal(sample["tokens.npy"], block.tokens)
            np.testing.assert_array_equal(sample["lengths.npy"], block.lengths)
            assert block.tokens.dtype == np.uint16


def test_blocks_read_in_any_order_are_the_same(manifest):
    forward = BlockReader(manifest, TRAIN)
    backward = BlockReader(manifest, TRAIN)
    expected = [forward.read(block).tokens.tobytes() for block in range(len(forward))]
    assert [backward.read(block).tokens.tobytes() for block in reversed(range(len(forward)))] == expected[::-1]


def test_the_counts_of_the_manifest_are_those_of_the_shards(manifest):
    reader = BlockReader(manifest, TRAIN)
    blocks = [reader.read(block) for block in range(len(reader))]
    tokens = np.concatenate([block.tokens for block in blocks])
    assert manifest.facts.train.tokens == len(tokens)
    assert manifest.facts.train.documents == sum(len(block.lengths) for block in blocks)
    np.testing.assert_array_equal(np.bincount(tokens, minlength=manifest.vocab_size), manifest.token_counts)
    probabilities = np.unique(tokens, return_counts=True)[1] / len(tokens)
    assert manifest.unigram_entropy() == pytest.approx(-sum(p * np.log(p) for p in probabilities))


def test_whole_shards_verify(copied):
    report = verify_shards(copied)
    assert report.ok, report.problems
    Manifest.load(copied).check_files("checksums")
    read_everything(copied)


def truncate_at_member(path: Path) -> None:
    tar = first_tar(path)
    with tar.open("r+b") as file:
        file.truncate(members(tar)[6].offset)


def truncate_in_member(path: Path) -> None:
    tar = first_tar(path)
    with tar.open("r+b") as file:
        file.truncate(members(tar)[7].offset_data + 1000)


def drop_a_sample(path: Path) -> None:
    """One block cut out, the size made up with zeros: nothing that a tar reader would notice."""
    tar = first_tar(path)
    at = [member.offset for member in members(tar)]
    content = tar.read_bytes()
    tar.write_bytes((content[: at[2]] + content[at[4] :]).ljust(len(content), b"\0"))


def garbage_header(path: Path) -> None:
    tar = first_tar(path)
    with tar.open("r+b") as file:
        file.seek(members(tar)[4].offset)
        file.write(b"\xa5" * 512)


def shrink_header(path: Path) -> None:
    """A header that is valid but belongs to another block."""
    tar = first_tar(path)
    at = members(tar)
    with tar.open("r+b") as file:
        file.seek(at[0].offset)
        header = file.read(512)
        file.seek(at[4].offset)
        file.write(header)


def wrong_lengths(path: Path) -> None:
    """A flipped bit in the lengths of the third block."""
    tar = first_tar(path)
    with tar.open("r+b") as file:
        file.seek(members(tar)[4].offset_data + 128)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    "damage",
    [truncate_at_member, truncate_in_member, drop_a_sample, garbage_header, shrink_header, wrong_lengths],
)
def test_damage_to_a_shard_is_an_error_when_its_block_is_read_and_when_it_is_verified(copied, damage):
    damage(copied)
    with pytest.raises(DataError, match=r"train-00000\.tar: block \d+ is damaged"):
        read_everything(copied)
    report = verify_shards(copied, checksums=False)
    assert not report.ok
    assert "train-00000.tar" in report.problems[0]
    with pytest.raises(DataError, match=r"train-00000\.tar"):
        Manifest.load(copied).check_files("checksums")


def test_a_flipped_byte_of_a_token_is_found_by_the_checksum(copied):
    tar = first_tar(copied)
    with tar.open("r+b") as file:
        file.seek(members(tar)[1].offset_data + 200)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    report = verify_shards(copied)
    assert any("SHA-256" in problem for problem in report.problems)
    with pytest.raises(DataError, match="SHA-256"):
        Manifest.load(copied).check_files("checksums")


def test_missing_and_extra_files_are_found(copied):
    first_tar(copied).unlink()
    (copied / "train-99999.tar").write_bytes(b"x")
    report = verify_shards(copied)
    assert any("train-00000.tar: missing" in problem for problem in report.problems)
    assert any("train-99999.tar: not in the manifest" in problem for problem in report.problems)
    with pytest.raises(DataError, match="missing"):
        Manifest.load(copied).check_files()
    with pytest.raises(DataError, match="missing"):
        inspect_shards(copied)


def test_a_missing_or_damaged_index_is_found(copied):
    index = sorted(copied.glob("train-*.index.json"))[0]
    content = json.loads(index.read_text())
    content["offsets"].pop()
    index.write_text(json.dumps(content))
    with pytest.raises(DataError, match="does not agree with the manifest"):
        read_everything(copied)
    index.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_everything(copied)


def test_another_tokenizer_in_the_folder_is_found(copied):
    file = copied / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text() + "\n")
    report = verify_shards(copied)
    assert any("not the tokenizer" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("vocab_size"), "damaged at vocab_size"),
        (lambda content: content["train"]["shards"][0].update(blocks="many"), r"damaged at train\.shards\.0\.blocks"),
        (lambda content: content.update(version=99), "version 99"),
        (lambda content: content.update(format="other"), "not a manifest"),
    ],
)
def test_a_damaged_manifest_names_what_is_wrong(copied, change, message):
    file = copied / MANIFEST_FILE
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        Manifest.load(copied)


def test_a_folder_without_manifest_and_a_cut_manifest_are_refused(copied):
    file = copied / MANIFEST_FILE
    file.write_text(file.read_text()[:100])
    with pytest.raises(DataError, match="cannot be read as JSON"):
        Manifest.load(copied)
    file.unlink()
    with pytest.raises(DataError, match="data build"):
        Manifest.load(copied)
