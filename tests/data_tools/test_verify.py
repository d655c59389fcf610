"""`data verify`: one read of each file, any number of workers, and a report that programs read."""

from __future__ import annotations

import builtins
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_tools import verify
from data_tools.build import BuildOptions, build_shards
from data_tools.verify import verify_plan, verify_shards
from electra_dist.cli.main import main
from electra_dist.data.shards import scanning
from electra_dist.data.shards.manifest import Manifest
from electra_dist.errors import DataError
from electra_dist.files.reading import open_regular


@pytest.fixture(scope="module")
def shards(
    topics_file: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Shards of many files: blocks of 1,024 tokens, 16 in a shard."""
    out = tmp_path_factory.mktemp("shards") / "shards"
    options = BuildOptions(validation=0.2, block_tokens=1024, shard_blocks=16)
    build_shards([topics_file], tokenizer_dir, out, options)
    return out


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    shutil.copytree(shards, tmp_path / "copied")
    return tmp_path / "copied"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_each_shard_is_opened_and_read_once(shards, monkeypatch):
    opened: Counter[str] = Counter()
    read: Counter[str] = Counter()

    class Counted:
        def __init__(self, path: Path) -> None:
            opened[path.name] += 1
            self._name = path.name
            self._file = open_regular(path)

        def read(self, count: int) -> bytes:
            content = self._file.read(count)
            read[self._name] += len(content)
            return content

        def close(self) -> None:
            self._file.close()

    monkeypatch.setattr(scanning, "open_regular", Counted)
    assert verify_shards(shards).ok
    manifest = Manifest.load(shards)
    tars = [shard.tar for name in ("train", "validation") for shard in manifest.split(name).shards]
    assert len(tars) > 6
    assert opened == {tar.name: 1 for tar in tars}
    assert read == {tar.name: tar.bytes for tar in tars}


def test_workers_find_what_one_process_finds(copied):
    tars = sorted(copied.glob("train-*.tar"))
    flip(tars[1], 512 + 130)  # a length
    flip(tars[3], 2048 + 40)  # somewhere in the second block
    os.truncate(tars[4], 1000)
    tars[5].unlink()
    (copied / "extra").write_text("x")
    alone = verify_shards(copied)
    assert len(alone.problems) >= 6
    several = verify_shards(copied, workers=3)
    assert several.problems == alone.problems
    assert several.blocks == alone.blocks
    for tar in (tars[1], tars[3]):
        assert any(f"{tar.name}: its content is not" in line for line in alone.problems)


def test_progress_is_told_in_megabytes_up_to_the_end(shards):
    told: list[tuple[str, int, int]] = []
    verify_shards(shards, progress=lambda *words: told.append(words))
    assert {stage for stage, _, _ in told} == {"verify"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_many_damaged_blocks_of_a_shard_are_counted_and_not_all_listed(
    copied, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(verify, "_LISTED", 3)
    tar = sorted(copied.glob("train-*.tar"))[0]
    content = bytearray(tar.read_bytes())
    for at in range(0, len(content), 512):
        content[at] ^= 1
    tar.write_bytes(content)
    problems = [line for line in verify_shards(copied).problems if tar.name in line]
    assert len(problems) == 4
    assert "more damaged blocks" in problems[-1]


def test_the_plan_lists_every_shard_once_and_opens_none(shards, monkeypatch):
    manifest = Manifest.load(shards)

    def refuse(*words: object, **options: object) -> None:
        raise AssertionError(f"opened {words}")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(os, "open", refuse)
    plan = verify_plan(manifest)
    assert len(plan.shards) == len(list(shards.glob("*.tar")))
    assert plan.bytes == sum(
        path.stat().st_size
        for path in shards.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    )
    assert plan.extra == ()


def test_the_command_takes_workers_and_prints_a_report(copied, capsys):
    assert main(["data", "verify", str(copied), "--workers", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["bytes"] > 0
    assert report["seconds"] > 0
    assert report["problems"] == []
    assert main(["data", "verify", str(copied), "--workers", "0"]) == 2
    assert "--workers 0: expected at least 1" in capsys.readouterr().err


def test_workers_that_cannot_be_are_refused(shards):
    with pytest.raises(DataError, match="`workers` 0"):
        verify_shards(shards, workers=0)
