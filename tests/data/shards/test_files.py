"""The files of a shards' folder: checked in shares, copied without what a link points at."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.shards.manifest import SPLITS, VALIDATION, Manifest
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import RowFormat, StepPlan
from electra_dist.data.validation import validation_rows
from electra_dist.errors import DataError, UserError
from electra_dist.runs.opening.start import open_run

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"


@pytest.fixture
def copied(manifest: Manifest, tmp_path: Path) -> Manifest:
    """A copy of the small shards that a test may change."""
    shutil.copytree(manifest.path, tmp_path / "shards")
    return Manifest.load(tmp_path / "shards")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("level", ["sizes", "checksums"])
def test_the_shares_of_all_ranks_together_check_every_file_once(copied, level):
    seen: list[tuple[int, int]] = []
    for rank in range(3):
        copied.check_files(level, (rank, 3), lambda done, total: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1]  # the whole share
    assert sum(total for done, total in seen if done == total) == sum(
        facts.bytes for facts in copied.files()
    )


def test_damage_is_found_by_the_rank_whose_share_it_is_in(copied):
    names = [facts.name for facts in copied.files()]
    victim = copied.facts.train.shards[1].tar.name
    flip(copied.path / victim, 700)
    for rank in range(2):
        if names.index(victim) % 2 == rank:
            with pytest.raises(DataError, match=rf"{victim}: its content is not what was written"):
                copied.check_files("checksums", (rank, 2))
        else:
            copied.check_files("checksums", (rank, 2))


def test_gone_damaged_and_unreadable_are_different_messages(copied):
    first, second, third = (shard.tar.name for shard in copied.facts.train.shards[:3])
    os.truncate(copied.path / first, 1000)
    with pytest.raises(DataError, match=rf"{first}: has 1000 bytes, .*copy it again"):
        copied.check_files()
    shutil.copy(copied.path / second, copied.path / first)
    (copied.path / first).unlink()
    with pytest.raises(DataError, match=rf"{first}: missing; is its file system mounted") as gone:
        copied.check_files()
    assert "build the shards again" not in str(gone.value)
    os.mkfifo(copied.path / first)
    with pytest.raises(DataError, match="a link or a special file"):
        copied.check_files("checksums")
    (copied.path / first).unlink()
    (copied.path / first).symlink_to(copied.path / third)
    with pytest.raises(DataError, match="a link or a special file"):
        copied.check_files()


def test_a_new_run_gets_the_tokenizer_and_nothing_that_a_link_points_at(
    copied, make_config, tmp_path
):
    key = tmp_path / "id_ed25519"
    key.write_text(SECRET)
    config = make_config(run={"dir": str(tmp_path / "runs")})
    config.run.path.mkdir(parents=True)
    shown = copied.tokenizer_path / "tokenizer_config.json"
    kept = shown.read_bytes()
    shown.unlink()
    shown.symlink_to(key)
    with pytest.raises(UserError, match=r"tokenizer_config\.json: is a link"):
        open_run(config, RunData.alone(copied), print)
    shown.unlink()
    os.mkfifo(shown)
    with pytest.raises(UserError, match=r"tokenizer_config\.json: is not a regular file"):
        open_run(config, RunData.alone(copied), print)
    shown.unlink()
    shown.write_bytes(kept)
    (copied.tokenizer_path / "extra.json").symlink_to(key)  # not in the manifest
    open_run(config, RunData.alone(copied), print)
    run = config.run.path
    assert sorted(path.name for path in (run / "tokenizer").iterdir()) == sorted(
        Path(facts.name).name for facts in copied.facts.tokenizer_files
    )
    assert not any(
        SECRET in path.read_text(errors="replace") for path in run.rglob("*") if path.is_file()
    )


def test_a_tokenizer_that_is_not_whole_is_made_again_and_another_one_is_refused(
    copied, make_config, tmp_path
):
    config = make_config(run={"dir": str(tmp_path / "runs")})
    cut = config.run.path / "tokenizer"
    cut.mkdir(parents=True)
    (cut / "tokenizer.json").write_text("{")  # a start that ran out of disk
    assert not copied.is_tokenizer(cut)
    open_run(config, RunData.alone(copied), print)
    assert copied.is_tokenizer(cut)
    assert [path.name for path in config.run.path.iterdir() if path.name.startswith(".")] == []
    (copied.tokenizer_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="its content is not what was written"):
        copied.copy_tokenizer(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("split", SPLITS)
def test_no_step_and_no_validation_is_made_of_a_block_with_a_flipped_bit(
    copied, make_config, split
):
    """Sizes, counts, ids: all as before; `data.verify` is at its default."""
    victim = copied.split(split).shards[0].tar.name
    at = copied.path / victim
    with tarfile.open(at) as archive:
        tokens = archive.getmembers()[1]
    flip(at, tokens.offset_data + 128)  # the lowest bit of the first id
    config = make_config(data={"shards": str(copied.path)}, train={"steps": 400})
    copied.check_files(config.data.verify)

    def everything() -> object:
        if split == VALIDATION:
            return validation_rows(RunData.alone(copied), RowFormat.of(config), 8)
        with TrainLoader(StepPlan.of(config, 0, 1), RunData.alone(copied)) as loader:
            return list(loader)

    with pytest.raises(DataError, match=rf"{victim}: block 0 is damaged: its checksum"):
        everything()
