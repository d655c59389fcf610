"""Shards: readable by plain WebDataset, and every kind of damage is found."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from data_tools.inspect import inspect_shards
from data_tools.upgrade import upgrade_shards
from data_tools.verify import verify_shards
from electra_dist.data.shards.manifest import MANIFEST_FILE, SPLITS, TRAIN, Manifest
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError
from tests.support.shards import as_version_1, table, vouch


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


def test_shards_of_an_earlier_version_are_read_and_get_checksums_by_command(copied):
    before = Manifest.load(copied)
    tar = first_tar(copied)
    at = members(tar)[1].offset_data + 200
    as_version_1(copied, checksums=False)
    old = Manifest.load(copied)
    assert old.fingerprint == before.fingerprint
    assert old.facts.block_checksums is None
    read_everything(copied)
    assert verify_shards(copied).ok
    flip_bit(tar, at, 0)
    with pytest.raises(DataError, match="SHA-256 differs"):
        upgrade_shards(copied)  # no damage is sealed in
    read_everything(copied)  # nothing changed: neither checksums nor the damage seen
    flip_bit(tar, at, 0)
    stats = upgrade_shards(copied, workers=2)
    assert stats.fingerprint == before.fingerprint
    assert stats.blocks == before.facts.train.blocks + before.facts.validation.blocks
    assert verify_shards(copied).ok
    assert not list(copied.glob("*.index-crc32.json"))
    reader = BlockReader(old, TRAIN)
    for block in range(len(reader)):
        reader.read(block)  # a run that began before goes on with the old indexes
    flip_bit(tar, at, 0)
    with pytest.raises(DataError, match="block 0 is damaged: its checksum"):
        read_everything(copied)
    flip_bit(tar, at, 0)
    assert upgrade_shards(copied).blocks == 0


def test_version_1_with_checksums_is_read_and_upgraded_to_the_same_bytes(copied):
    """The tables that the upgrade writes are those that the build wrote."""
    built = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    before = Manifest.load(copied)
    as_version_1(copied)
    old = Manifest.load(copied)
    assert old.facts.tables is None
    assert old.fingerprint == before.fingerprint
    assert [shard.tar for shard in old.facts.train.shards] == [
        shard.tar for shard in before.facts.train.shards
    ]
    read_everything(copied)
    assert verify_shards(copied).ok
    upgrade_shards(copied)
    for name, content in built.items():
        assert (copied / name).read_bytes() == content
    assert verify_shards(copied).ok  # old indexes may lie there


# --- the tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["start", "tokens", "documents", "crc32"])
@pytest.mark.parametrize("known", [False, True], ids=["unnoticed", "vouched for"])
def test_a_wrong_entry_of_the_table_of_blocks_never_gives_tokens(copied, field, known):
    """Every bit of every entry; with a manifest that vouches for the damage too."""
    path = table(copied, TRAIN, "blocks")
    content = path.read_bytes()
    header = len(content) - 16 * Manifest.load(copied).facts.train.blocks
    column = ("start", "tokens", "documents", "crc32").index(field)
    for block in (0, 3):
        for bit in range(32):
            changed = bytearray(content)
            changed[header + 16 * block + 4 * column + bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(changed)
            if known:
                vouch(copied, TRAIN, "blocks")
            reader = BlockReader(Manifest.load(copied), TRAIN)
            with pytest.raises(DataError, match=r"train\.blocks-\w+\.npy: its entries of"):
                reader.read(block)
    report = verify_shards(copied)
    assert any("its entries of train-00000.tar are damaged" in line for line in report.problems)
    assert known != any("SHA-256" in line for line in report.problems)


def test_the_entries_of_two_blocks_exchanged_are_found(copied):
    path = table(copied, TRAIN, "blocks")
    content = np.load(path)
    content[[0, 1]] = content[[1, 0]]
    np.save(path, content)
    with pytest.raises(DataError, match=r"its entries of train-00000\.tar are damaged"):
        BlockReader(Manifest.load(copied), TRAIN).read(0)


def test_a_table_that_is_gone_cut_or_a_link_is_named(copied):
    path = table(copied, TRAIN, "blocks")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"{path.name}: has {len(content) - 1} bytes"):
        read_everything(copied)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: missing; is its file system mounted"):
        read_everything(copied)
    assert any(path.name in problem for problem in verify_shards(copied).problems)
    elsewhere = copied / "kept"
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    with pytest.raises(DataError, match="a link or a special file"):
        read_everything(copied)
    shards = table(copied, TRAIN, "shards")
    shards.unlink()
    with pytest.raises(DataError, match=rf"{shards.name}: missing"):
        Manifest.load(copied)


def test_the_tables_are_what_the_tars_hold(manifest):
    """Against the standard library's tarfile and zlib."""
    blocks = np.load(table(manifest.path, TRAIN, "blocks"))
    number = 0
    for record, shard in zip(
        np.load(table(manifest.path, TRAIN, "shards")), manifest.facts.train.shards, strict=True
    ):
        path = manifest.path / shard.tar.name
        assert bytes(record["sha256"]).hex() == hashlib.sha256(path.read_bytes()).hexdigest()
        found = members(path)
        for lengths, tokens in zip(found[::2], found[1::2], strict=True):
            with path.open("rb") as file:
                contents = []
                for member in (lengths, tokens):
                    file.seek(member.offset_data)
                    contents.append(file.read(member.size))
            assert 512 * int(blocks["start"][number]) == lengths.offset
            assert blocks["crc32"][number] == zlib.crc32(b"".join(contents))
            assert blocks["tokens"][number] == (tokens.size - 128) // 2
            number += 1
    assert number == len(blocks)


# --- files ----------------------------------------------------------------------------------------


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


def test_a_missing_or_damaged_index_of_version_1_is_found(copied):
    as_version_1(copied)
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
    as_version_1(copied)
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


DAMAGE = [
    (lambda content: content.pop("vocab_size"), "damaged at vocab_size"),
    (lambda content: content.update(version=99), "version 99"),
    (lambda content: content.update(format="other"), "not a manifest"),
    (
        lambda content: content.update(fingerprint="0" * 64),
        "fingerprint is not that of its shards",
    ),
    (lambda content: content["train"].update(documents=7), "split train are not the sums"),
    (lambda content: content["token_counts"].append(0), "one count an id"),
    (lambda content: content["token_counts"].__setitem__(9, 10**6), "do not add up"),
    (lambda content: content.update(block_tokens=10**12), "expected at most"),
    (lambda content: content.update(block_checksums="md5"), "damaged at block_checksums"),
]
DAMAGE_OF_VERSION_1 = [
    (
        lambda content: content["train"]["shards"][0].update(blocks="many"),
        r"damaged at train\.shards\.0\.blocks",
    ),
    (
        lambda content: content["train"]["shards"][0]["tar"].update(sha256="0" * 64),
        "fingerprint is not that of",
    ),
    (
        lambda content: content["train"]["shards"][0].update(tokens=7),
        "not the sums of its shards|do not fit",
    ),
]
DAMAGE_OF_VERSION_2 = [
    (lambda content: content["train"].update(shards="many"), r"damaged at train\.shards"),
    (lambda content: content["train"].update(shards=99), "has 99 shards, its table"),
    (lambda content: content["train"].update(blocks=7), "for the 7 blocks of the split train"),
    (lambda content: content.pop("tables"), "damaged at tables"),
    (lambda content: content["tables"].pop("train"), r"damaged at tables\.train"),
    (
        lambda content: content["tables"]["train"]["shards"].update(sha256="0" * 64),
        r"train\.shards-\w+\.npy: its content is not what was written",
    ),
    (
        lambda content: content["tables"]["train"]["shards"].update(name="../x.npy"),
        "is no name of a file in the folder",
    ),
    (
        lambda content: content["tables"]["train"]["blocks"].update(name="/etc/passwd"),
        "is no name of a file in the folder",
    ),
    (lambda content: content["tables"]["train"]["blocks"].update(bytes=9), "a table of 9 bytes"),
]


def damaged(path: Path, change: Callable[[Any], Any]) -> None:
    file = path / MANIFEST_FILE
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(("change", "message"), DAMAGE + DAMAGE_OF_VERSION_2)
def test_a_damaged_manifest_names_what_is_wrong(copied, change, message):
    damaged(copied, change)
    with pytest.raises(DataError, match=message):
        Manifest.load(copied)


@pytest.mark.parametrize(("change", "message"), DAMAGE + DAMAGE_OF_VERSION_1)
def test_a_damaged_manifest_of_version_1_names_what_is_wrong(copied, change, message):
    as_version_1(copied)
    Manifest.load(copied)
    damaged(copied, change)
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
