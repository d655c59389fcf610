"""Shards that somebody made to do harm: nothing leaves the folder,
nothing is believed before it is measured.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_dist.data.shards.blocks import (
    LENGTHS,
    TOKENS,
    BlockSize,
    DamageError,
    array_bytes,
    parse_block,
    parse_members,
)
from electra_dist.data.shards.manifest import (
    MANIFEST_FILE,
    SPLITS,
    Manifest,
    SplitFacts,
    dataset_fingerprint,
)
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError
from tests.support.shards import as_version_1, table, vouch

CLAIMED = 40 * 10**9


@pytest.fixture
def copied(manifest: Manifest, tmp_path: Path) -> Path:
    shutil.copytree(manifest.path, tmp_path / "shards")
    as_version_1(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def current(manifest: Manifest, tmp_path: Path) -> Path:
    """The same, as they are written today."""
    shutil.copytree(manifest.path, tmp_path / "current")
    return tmp_path / "current"


@pytest.fixture
def little_memory() -> Iterator[None]:
    """An allocation of tens of GB fails here instead of filling the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and make it agree with itself again, as an attacker would.

    Of version 1, which has more to lie about; `rewrite_table` is for version 2.
    """
    file = path / MANIFEST_FILE
    content = json.loads(file.read_text())
    change(content)
    splits = []
    for name in SPLITS:
        shards = content[name]["shards"]
        for key in ("blocks", "documents", "tokens"):
            content[name][key] = sum(shard[key] for shard in shards)
        splits.append([(shard["tar"]["name"], shard["tar"]["sha256"]) for shard in shards])
    parts = [content["format"], content["version"], content["tokenizer_fingerprint"], splits]
    content["fingerprint"] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    file.write_text(json.dumps(content))


def test_the_attack_files_of_these_tests_agree_with_themselves(copied):
    before = Manifest.load(copied)
    rewrite_manifest(copied, lambda content: None)
    after = Manifest.load(copied)
    assert after.facts == before.facts
    splits = [SplitFacts.of(after.split(name).shards) for name in SPLITS]
    assert after.fingerprint == dataset_fingerprint(after.facts.tokenizer_fingerprint, splits)


@pytest.mark.parametrize("kind", ["tar", "index"])
@pytest.mark.parametrize(
    "name",
    [
        "../../x.tar",
        "/etc/passwd.tar",
        "..",
        ".",
        "",
        "a/b.tar",
        "x\0.tar",
        "x\n.tar",
        ".hidden.tar",
        "x" * 400,
    ],
)
def test_names_that_leave_the_folder_are_refused(copied, kind, name):
    def change(content: dict[str, Any]) -> None:
        content["train"]["shards"][0][kind]["name"] = name

    rewrite_manifest(copied, change)
    with pytest.raises(
        DataError, match=r"manifest\.json: contradicts itself \(.* is no name of a file"
    ):
        Manifest.load(copied)


@pytest.mark.parametrize(
    "name", ["tokenizer/../../key", "/etc/passwd", "../key", "tokenizer/a/b", "tokenizer/"]
)
def test_names_of_tokenizer_files_that_leave_the_folder_are_refused(copied, name):
    rewrite_manifest(copied, lambda content: content["tokenizer_files"][0].update(name=name))
    with pytest.raises(DataError, match="is no name of a file"):
        Manifest.load(copied)


def test_a_shard_that_is_named_twice_is_refused(copied):
    def change(content: dict[str, Any]) -> None:
        content["validation"]["shards"] = content["train"]["shards"][:1]

    rewrite_manifest(copied, change)
    with pytest.raises(DataError, match="a file is named twice"):
        Manifest.load(copied)


def test_counts_that_do_not_fit_the_size_of_the_shard_are_refused(copied):
    def change(content: dict[str, Any]) -> None:
        content["train"]["shards"][0]["tokens"] += CLAIMED

    rewrite_manifest(copied, change)
    with pytest.raises(DataError, match=r"counts of train-00000\.tar do not fit its size"):
        Manifest.load(copied)


def rewrite_table(path: Path, change: Callable[[Any], None]) -> None:
    """Change the table of the train shards, and let the manifest vouch for it."""
    file = table(path, "train", "shards")
    content = np.load(file)
    change(content)
    np.save(file, content)
    vouch(path, "train", "shards")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("number", 7, "not in ascending order"),
        ("tokens", CLAIMED, r"counts of train-00000\.tar do not fit its size"),
        ("blocks", 2**32 - 1, r"counts of train-00000\.tar do not fit its size"),
        ("bytes", 2**63, "fingerprint|do not fit"),
        ("sha256", 0, "the fingerprint is not that of its shards"),
    ],
)
def test_a_table_of_shards_that_lies_is_refused(current, field, value, message):
    def change(content: Any) -> None:
        content[field][0] = value

    rewrite_table(current, change)
    if field == "bytes":
        Manifest.load(current)
        with pytest.raises(DataError, match="the manifest says 9223372036854775808"):
            Manifest.load(current).check_files()
    else:
        with pytest.raises(DataError, match=message):
            Manifest.load(current)


@pytest.mark.parametrize("kind", ["shards", "blocks"])
def test_a_table_of_another_type_is_refused_and_nothing_is_unpickled(current, kind, little_memory):
    file = table(current, "train", kind)
    size = file.stat().st_size
    with file.open("wb") as out:
        np.save(out, np.array([print], dtype=object), allow_pickle=True)
    os.truncate(file, size)
    vouch(current, "train", kind)
    with pytest.raises(DataError, match="is no table of"):
        BlockReader(Manifest.load(current), "train").read(0)


@pytest.mark.parametrize("kind", ["shards", "blocks"])
def test_a_huge_table_is_not_read(current, kind, little_memory):
    os.truncate(table(current, "train", kind), CLAIMED)
    with pytest.raises(DataError, match=r"is larger than the manifest says|has 40000000000 bytes"):
        BlockReader(Manifest.load(current), "train").read(0)
    content = json.loads((current / MANIFEST_FILE).read_text())
    content["tables"]["train"][kind]["bytes"] = CLAIMED
    (current / MANIFEST_FILE).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"is larger than the man|table of 40000000000 bytes"):
        BlockReader(Manifest.load(current), "train").read(0)


def member(name: str, content: bytes, **changes: Any) -> bytes:
    """One member of a tar; `changes` are set on its header."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512)


def sparse_member(name: str, size: int) -> bytes:
    """A GNU sparse file of `size` bytes, all of them a hole."""
    header = bytearray(member(name, b"", type=tarfile.GNUTYPE_SPARSE))
    # the real size
    header[483:495] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


LENGTHS_OK = array_bytes(np.array([3, 4], "<u4"))
TOKENS_OK = array_bytes(np.array([9, 8, 7, 6, 5, 9, 9], "<u2"))
SIZE = BlockSize(7, 2, np.dtype("<u2"))


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def read(content: bytes) -> Any:
    return parse_block(parse_members(content, "k", SIZE), SIZE)


def test_a_plain_block_in_either_order_is_read():
    one, two = member(f"k.{LENGTHS}", LENGTHS_OK), member(f"k.{TOKENS}", TOKENS_OK)
    for content in (one + two, two + one, one + two + b"\0" * 1024):
        block = read(content)
        assert block.tokens.tolist() == [9, 8, 7, 6, 5, 9, 9]
        assert block.lengths.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (sparse_member(f"k.{LENGTHS}", CLAIMED), "not a plain file in the archive"),
        (
            member(f"k.{LENGTHS}", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "not a plain file",
        ),
        (member(f"k.{LENGTHS}", b"", type=tarfile.LNKTYPE, linkname="other"), "not a plain file"),
        (member(f"k.{LENGTHS}", b"", type=tarfile.FIFOTYPE), "not a plain file"),
        (
            member(f"k.{LENGTHS}", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
            "not a plain file",
        ),
        (member(f"k.{LENGTHS}", b"", type=b"Z"), "not a plain file"),
        (member("k.cls", b"x"), "where the members of k should be"),
        (member("../k." + LENGTHS, LENGTHS_OK), "where the members of k should be"),
        (
            member("././@PaxHeader", b"30 size=40000000000\n", type=tarfile.XHDTYPE),
            "where the members of k should be",
        ),
        (
            member("././@LongLink", b"x" * 300, type=tarfile.GNUTYPE_LONGNAME),
            "where the members of k should be",
        ),
        (member(f"k.{LENGTHS}", LENGTHS_OK) * 2, "where the members of k should be"),
        (member(f"k.{LENGTHS}", b"", size=CLAIMED), "claims 40000000000 bytes"),
        (member(f"k.{LENGTHS}", b"", size=-512), "claims -512 bytes"),
        (member(f"k.{LENGTHS}", b""), "claims 0 bytes"),
        (b"", "no header of an archive's member"),
        (b"\0" * 1024, "no header of an archive's member"),
        (b"\xa5" * 1024, "no header of an archive's member"),
    ],
)
def test_members_that_are_no_plain_files_of_their_size_are_refused(content, message, little_memory):
    with pytest.raises(DamageError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            npy("{'descr': '<u2', 'fortran_order': False, 'shape': (20000000000,), }"),
            r"described as .*20000000000",
        ),
        (
            npy("{'descr': '<u2', 'fortran_order': False, 'shape': (7,), }"),
            "0 bytes of elements, expected 14",
        ),
        (
            npy("{'descr': '|O', 'fortran_order': False, 'shape': (7,), }")
            + b"cos\nsystem\n(S'true'\ntR.",
            "described as",
        ),
        (
            npy("{'descr': '<u4', 'fortran_order': False, 'shape': (7,), }") + b"\0" * 28,
            "described as .*<u4",
        ),
        (
            npy("{'descr': '<u2', 'fortran_order': False, 'shape': (7, 1), }") + b"\0" * 14,
            "described as",
        ),
        (
            npy("{'descr': '<u2', 'fortran_order': False, 'shape': (-7,), }") + b"\0" * 14,
            "described as",
        ),
        (npy("__import__('os').system('true')"), "described as"),
        (npy("(" * 100), "described as"),
        (b"\x93NUMPY\x02\x00" + b"\xff\xff\xff\x7f" + b" " * 100, "no .npy file of version"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 2000, "no .npy file of version"),
        (b"PK\x03\x04" + b"\0" * 200, "no .npy file of version"),
        (TOKENS_OK + b"\0", "15 bytes of elements, expected 14"),
    ],
)
def test_arrays_that_claim_other_than_the_index_says_are_refused(tokens, message, little_memory):
    with pytest.raises(DamageError, match=message):
        read(member(f"k.{LENGTHS}", LENGTHS_OK) + member(f"k.{TOKENS}", tokens))


def replace_first_block(path: Path, content: bytes) -> None:
    """Put `content` where the first block is, and let the manifest vouch for the shard."""
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    shard = manifest["train"]["shards"][0]
    tar = path / shard["tar"]["name"]
    with tar.open("r+b") as file:
        file.write(content)
    changed = hashlib.sha256(tar.read_bytes()).hexdigest()
    rewrite_manifest(
        path, lambda content: content["train"]["shards"][0]["tar"].update(sha256=changed)
    )


def test_a_whole_shard_with_a_sparse_member_is_refused_when_read_whatever_the_checksums_say(
    copied, little_memory
):
    replace_first_block(copied, sparse_member(f"train-00000-000000.{LENGTHS}", CLAIMED))
    manifest = Manifest.load(copied)
    manifest.check_files("checksums")
    with pytest.raises(
        DataError, match=r"train-00000\.tar: block 0 is damaged: .* not a plain file in the archive"
    ):
        BlockReader(manifest, "train").read(0)


def test_a_shard_that_claims_to_be_huge_with_nothing_in_it_is_not_read_whole(
    copied, tmp_path, little_memory
):
    """A hole of 40 GB on the disk, an index of 40 GB:
    refused by their claims, before a byte of it is read.
    """
    manifest = Manifest.load(copied)
    tar = copied / manifest.facts.train.shards[0].tar.name
    with tar.open("r+b") as file:
        file.truncate(CLAIMED)
    rewrite_manifest(
        copied, lambda content: content["train"]["shards"][0]["tar"].update(bytes=CLAIMED)
    )
    BlockReader(Manifest.load(copied), "train").read(0)  # reads one block of it
    rewrite_manifest(
        copied, lambda content: content["train"]["shards"][0]["index"].update(bytes=CLAIMED)
    )
    with pytest.raises(DataError, match="do not fit its size"):
        Manifest.load(copied)


def test_a_manifest_that_is_huge_or_deep_or_special_is_refused(copied, little_memory):
    file = copied / MANIFEST_FILE
    file.unlink()
    with file.open("wb") as out:
        out.truncate(CLAIMED)
    with pytest.raises(DataError, match="is larger than"):
        Manifest.load(copied)
    file.write_bytes(b"[" * 200_000)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        Manifest.load(copied)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is a link"):
        Manifest.load(copied)


def test_nothing_of_a_block_is_unpickled(copied):
    """A pickle in place of the ids, with the right name and size."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(DamageError, match="described as"):
        read(member(f"k.{LENGTHS}", LENGTHS_OK) + member(f"k.{TOKENS}", buffer.getvalue()))
