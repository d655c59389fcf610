"""Shards: readable by plain WebDataset, and every kind of damage is found."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_tools.checksums import add_checksums
from data_tools.inspect import inspect_shards, verify_shards
from electra_dist.data.shards.manifest import MANIFEST_FILE, SPLITS, TRAIN, Manifest
from electra_dist.data.shards.reading import BlockReader
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
    assert [
        backward.read(block).tokens.tobytes() for block in reversed(range(len(forward)))
    ] == expected[::-1]


def test_the_counts_of_the_manifest_are_those_of_the_shards(manifest):
    reader = BlockReader(manifest, TRAIN)
    blocks = [reader.read(block) for block in range(len(reader))]
    tokens = np.concatenate([block.tokens for block in blocks])
    assert manifest.facts.train.tokens == len(tokens)
    assert manifest.facts.train.documents == sum(len(block.lengths) for block in blocks)
    np.testing.assert_array_equal(
        np.bincount(tokens, minlength=manifest.vocab_size), manifest.token_counts
    )
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
    [
        truncate_at_member,
        truncate_in_member,
        drop_a_sample,
        garbage_header,
        shrink_header,
        wrong_lengths,
    ],
)
def test_damage_to_a_shard_is_an_error_when_its_block_is_read_and_when_it_is_verified(
    copied, damage
):
    damage(copied)
    with pytest.raises(DataError, match=r"train-00000\.tar: block \d+ is damaged"):
        read_everything(copied)
    report = verify_shards(copied, checksums=False)
    assert not report.ok
    assert "train-00000.tar" in report.problems[0]
    with pytest.raises(DataError, match=r"train-00000\.tar"):
        Manifest.load(copied).check_files("checksums")


def flip_bit(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("member", [0, 1])
def test_one_flipped_bit_of_a_block_is_found_when_the_block_is_read(copied, split, member):
    """The lengths are member 0, the tokens member 1;
    every bit of the ids of a token, and one of a length.
    """
    tar = sorted(copied.glob(f"{split}-*.tar"))[0]
    at = members(tar)[member]
    reader = BlockReader(Manifest.load(copied), split)
    reader.read(0)
    for bit in range(8):
        where = at.offset_data + at.size - 2
        flip_bit(tar, where, bit)
        with pytest.raises(DataError, match=rf"{tar.name}: block 0 is damaged: its checksum"):
            reader.read(0)
        flip_bit(tar, where, bit)
        reader.read(0)
    Manifest.load(copied).check_files("checksums")


def test_two_exchanged_lengths_or_tokens_are_found(copied):
    """Same counts, same sum, same ids: only the checksum knows."""
    tar = first_tar(copied)
    content = bytearray(tar.read_bytes())
    for member, width in ((members(tar)[0], 4), (members(tar)[1], 2)):
        first = member.offset_data + 128
        second = first + width
        while content[first : first + width] == content[second : second + width]:
            second += width
        changed = bytearray(content)
        changed[first : first + width], changed[second : second + width] = (
            content[second : second + width],
            content[first : first + width],
        )
        tar.write_bytes(changed)
        with pytest.raises(DataError, match="block 0 is damaged: its checksum"):
            read_everything(copied)
        assert not verify_shards(copied, checksums=False).ok


def as_an_earlier_version_made_them(path: Path) -> None:
    """Take the checksums out of indexes and manifest."""
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    del manifest["block_checksums"]
    for split in SPLITS:
        for shard in manifest[split]["shards"]:
            file = path / shard["index"]["name"]
            index = json.loads(file.read_text())
            del index["crc32"]
            text = json.dumps(index, separators=(",", ":")) + "\n"
            file.write_text(text)
            shard["index"] |= {
                "bytes": len(text),
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))


def test_shards_of_an_earlier_version_are_read_and_get_checksums_by_command(copied):
    before = Manifest.load(copied)
    tar = first_tar(copied)
    at = members(tar)[1].offset_data + 200
    as_an_earlier_version_made_them(copied)
    old = Manifest.load(copied)
    assert old.fingerprint == before.fingerprint
    assert old.facts.block_checksums is None
    read_everything(copied)
    assert verify_shards(copied).ok
    flip_bit(tar, at, 0)
    with pytest.raises(DataError, match="SHA-256 differs"):
        add_checksums(copied)  # no damage is sealed in
    read_everything(copied)  # nothing changed: neither checksums nor the damage seen
    flip_bit(tar, at, 0)
    stats = add_checksums(copied, workers=2)
    assert stats.fingerprint == before.fingerprint
    assert stats.blocks == before.facts.train.blocks + before.facts.validation.blocks
    assert verify_shards(copied).ok
    reader = BlockReader(old, TRAIN)
    for block in range(len(reader)):
        reader.read(block)  # a run that began before goes on with the old indexes
    flip_bit(tar, at, 0)
    with pytest.raises(DataError, match="block 0 is damaged: its checksum"):
        read_everything(copied)
    flip_bit(tar, at, 0)
    assert add_checksums(copied).blocks == 0


def test_a_shard_that_is_gone_or_unreadable_is_not_called_damaged(copied, monkeypatch):
    tar = first_tar(copied)
    tar.rename(copied / "kept")
    with pytest.raises(
        DataError, match=r"train-00000\.tar: missing; is its file system mounted"
    ) as gone:
        read_everything(copied)
    assert "damaged" not in str(gone.value)
    os.mkfifo(tar)  # opening it would wait for ever
    with pytest.raises(DataError, match="a link or a special file"):
        read_everything(copied)
    tar.unlink()
    tar.symlink_to(copied / "kept")
    with pytest.raises(DataError, match="a link or a special file"):
        read_everything(copied)
    tar.unlink()
    (copied / "kept").rename(tar)
    read_everything(copied)

    def failing(path, follow=False):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    reader = BlockReader(Manifest.load(copied), TRAIN)
    reader.read(0)
    monkeypatch.setattr("electra_dist.data.shards.reading.open_regular", failing)
    with pytest.raises(
        DataError, match="cannot be read: Input/output error; is its file system in order"
    ):
        reader.read(1)


def test_a_flipped_byte_of_a_token_is_found_by_the_checksum(copied):
    tar = first_tar(copied)
    flip_bit(tar, members(tar)[1].offset_data + 200, 0)
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
    content = index.read_bytes()
    index.write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(DataError, match=r"index\.json: its content is not what was written"):
        read_everything(copied)
    index.write_bytes(content + b" ")
    with pytest.raises(DataError, match="is larger than the manifest says"):
        read_everything(copied)
    index.unlink()
    with pytest.raises(DataError, match="missing; is its file system mounted"):
        read_everything(copied)


def write_index(path: Path, text: str) -> None:
    """Another first index, which the manifest vouches for."""
    index = sorted(path.glob("train-*.index.json"))[0]
    index.write_text(text)
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    facts = manifest["train"]["shards"][0]["index"]
    facts |= {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["offsets"].pop(), "does not agree with the manifest"),
        (lambda index: index["crc32"].clear(), "does not agree with the manifest"),
        (lambda index: index["offsets"].reverse(), "does not agree with the manifest"),
        (lambda index: index.pop("tokens"), "cannot be read as a shard's index"),
    ],
)
def test_an_index_that_contradicts_the_manifest_is_refused(copied, change, message):
    index = json.loads(sorted(copied.glob("train-*.index.json"))[0].read_text())
    change(index)
    write_index(copied, json.dumps(index))
    with pytest.raises(DataError, match=message):
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
        (
            lambda content: content["train"]["shards"][0].update(blocks="many"),
            r"damaged at train\.shards\.0\.blocks",
        ),
        (lambda content: content.update(version=99), "version 99"),
        (lambda content: content.update(format="other"), "not a manifest"),
        (
            lambda content: content["train"]["shards"][0]["tar"].update(sha256="0" * 64),
            "fingerprint is not that of",
        ),
        (
            lambda content: content.update(fingerprint="0" * 64),
            "fingerprint is not that of its shards",
        ),
        (
            lambda content: content["train"]["shards"][0].update(tokens=7),
            "not the sums of its shards|do not fit",
        ),
        (lambda content: content["train"].update(documents=7), "split train are not the sums"),
        (lambda content: content["token_counts"].append(0), "one count an id"),
        (lambda content: content["token_counts"].__setitem__(9, 10**6), "do not add up"),
        (lambda content: content.update(block_tokens=10**12), "expected at most"),
        (lambda content: content.update(block_checksums="md5"), "damaged at block_checksums"),
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
