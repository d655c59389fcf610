"""A run directory opens again whatever was cut, lost or left half made in it;
without torch, on any file system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData
from electra_dist.errors import ConfigError, StorageError, UserError
from electra_dist.runs import lock
from electra_dist.runs.checkpoints import manifest as checkpoint_manifest
from electra_dist.runs.checkpoints import members
from electra_dist.runs.checkpoints.manifest import CheckpointManifest
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import Heartbeat
from electra_dist.runs.opening.start import check_run, open_run, record_start
from tests.support.disks import mount
from tests.support.killing import killed_at


@pytest.fixture(scope="module")
def shards(tiny_shards: Path) -> RunData:
    return RunData.alone(Manifest.load(tiny_shards))


def config_at(path: Path, shards: RunData, **changes: Any) -> Config:
    tree = {
        "run": {"dir": str(path.parent), "name": path.name},
        "data": {"shards": str(shards.first.path), "row_length": 64, "streams": 4},
        "model": {"preset": "tiny"},
        "train": {"steps": 12, "global_rows": 8, "micro_rows": 2},
        "optim": {"lr": 1e-3, "warmup_steps": 2},
    }
    return configuration.build(
        configuration.apply_overrides(tree, [f"{k}={v}" for k, v in changes.items()])
    )


Opening = Callable[[Path], list[str]]


@pytest.fixture
def opened(shards: RunData) -> Opening:
    """Opens the run at a path as rank 0 does, and checks that everything is whole;
    returns what was warned of.
    """

    def open_at(path: Path) -> list[str]:
        run, config, said = RunDir(path), config_at(path, shards), []
        check_run(run, config, shards.fingerprint)
        with lock.hold(run):
            open_run(config, shards, said.append)
            record_start(run, 1, 0)
        assert configuration.load(run.config) == config
        assert run.read_facts().dataset_fingerprint == shards.fingerprint
        assert shards.is_tokenizer(run.tokenizer)
        assert not [entry.name for entry in path.iterdir() if entry.name.startswith(".")]
        return said

    return open_at


def saved_at(run: RunDir, step: int, carried: bool = True) -> None:
    """A whole checkpoint of no networks; it carries the run's own files as they are now."""
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    names = checkpoint_manifest.CARRIED if carried else ()
    files = {
        name: members.write_text(folder / name, (run.path / name).read_text()) for name in names
    }
    files[checkpoint_manifest.TRAINER] = members.write_text(
        folder / checkpoint_manifest.TRAINER, "{}"
    )
    content = CheckpointManifest(version=2, step=step, world_size=1, files=files, networks={})
    members.finish(folder, content)


# --- a first start that does not come to its end --------------------------------------------------


def test_a_first_start_that_is_killed_anywhere_is_followed_by_one_that_succeeds(
    tmp_path: Path, opened: Opening
) -> None:
    event = 0
    while killed_at(event, tmp_path / "runs", partial(opened, tmp_path / f"runs/{event}")):
        assert opened(tmp_path / f"runs/{event}") == []
        event += 1
    assert event > 15


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own, mounted anew with the options given."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount_anew(options: str) -> Path:
        mount(place, options)
        return place

    yield mount_anew
    while subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0:
        pass


def test_a_first_start_on_a_disk_of_any_size_leaves_nothing_in_the_way(
    disk: Callable[[str], Path], opened: Opening
) -> None:
    refusals = []
    for kilobytes in range(4, 4000, 16):
        path = disk(f"size={kilobytes}k") / "one"
        try:
            opened(path)
            break
        except StorageError as error:
            refusals.append(error)
        disk("remount,size=4m")
        assert opened(path) == []
        subprocess.run(["umount", "-l", str(path.parent)], check=True)
    assert len(refusals) > 3
    for error in refusals:
        assert "no space left" in str(error)
        assert "\n" not in str(error)
        assert error.exit_status == 74


def test_where_nothing_may_be_written_one_sentence_says_why(
    disk: Callable[[str], Path], opened: Opening, shards: RunData
) -> None:
    place = disk("size=4m")
    opened(place / "one")
    disk("remount,ro")
    for name in ("one", "new"):
        with pytest.raises(StorageError, match="read-only file system"):
            opened(place / name)
    with pytest.raises(StorageError, match="read-only"), Heartbeat(RunDir(place / "one"), 1):
        pass


def test_where_the_user_may_not_write_one_sentence_says_why(
    tmp_path: Path, opened: Opening
) -> None:
    """A user who may write nowhere; root, who may everywhere, becomes somebody else first."""
    runs = tmp_path / "runs"
    opened(runs / "one")
    for path in (runs, *runs.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    for name in ("one", "new"):
        child = os.fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                opened(runs / name)
            except StorageError as error:
                os._exit(74 if "permission denied" in str(error) else 1)
            except BaseException:
                os._exit(2)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 74


def test_how_a_run_ended_is_a_warning_where_it_cannot_be_noted(
    disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place = disk("size=64k")
    with Heartbeat(RunDir(place), 1):
        disk("remount,ro")
    assert "how the run ended cannot be noted: read-only file system" in capsys.readouterr().err


def test_a_tokenizer_that_is_not_whole_is_made_again(tmp_path: Path, opened: Opening) -> None:
    path = tmp_path / "runs/one"
    opened(path)
    for damage in (
        lambda file: file.write_bytes(file.read_bytes()[:50]),
        lambda file: file.unlink(),
        lambda file: (file.unlink(), file.symlink_to("/etc/passwd")),
        lambda file: shutil.rmtree(file.parent),
    ):
        damage(path / "tokenizer" / "tokenizer.json")
        opened(path)


# --- files that are lost or broken ----------------------------------------------------------------

DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_text(""),
    "cut": lambda file: file.write_text(file.read_text()[:40]),
    "zeros": lambda file: file.write_bytes(b"\0" * 300),
    "a list": lambda file: file.write_text("[]"),
    "gone": lambda file: file.unlink(),
    "a link to nowhere": lambda file: (file.unlink(), file.symlink_to("nowhere")),
    "binary": lambda file: file.write_bytes(b"\xff\xfe" * 20),
}


BOTH = ("run.json", "config.yaml")


@pytest.mark.parametrize(
    ("names", "damage"),
    [*((BOTH, damage) for damage in DAMAGE), (("run.json",), "gone"), (("config.yaml",), "gone")],
)
def test_what_is_lost_comes_from_the_newest_checkpoint(
    tmp_path: Path, opened: Opening, names: tuple[str, ...], damage: str
) -> None:
    run = RunDir(tmp_path / "runs/one")
    opened(run.path)
    saved_at(run, 5)
    opened(run.path)
    saved_at(run, 10)
    (run.checkpoint(10) / "COMPLETE").unlink()  # passed over
    identity = run.read_facts().wandb_id
    for name in names:
        DAMAGE[damage](run.path / name)
    said = opened(run.path)
    assert len(said) == len(names)
    for sentence in said:
        assert "restored from the checkpoint of step 5" in sentence
        assert "\n" not in sentence
    assert run.read_facts().wandb_id == identity
    assert opened(run.path) == []


@pytest.mark.parametrize(
    ("name", "damage"), [("run.json", "cut"), ("config.yaml", "zeros"), ("config.yaml", "gone")]
)
def test_before_anything_is_saved_it_is_made_anew(
    tmp_path: Path, opened: Opening, name: str, damage: str
) -> None:
    run = RunDir(tmp_path / "runs/one")
    opened(run.path)
    run.metrics.write_text('{"step": 0}\n')
    DAMAGE[damage](run.path / name)
    (said,) = opened(run.path)
    assert "nothing was saved" in said
    assert opened(run.path) == []


def test_a_configuration_that_cannot_be_had_from_anywhere_is_asked_for(
    tmp_path: Path, opened: Opening
) -> None:
    run = RunDir(tmp_path / "runs/one")
    opened(run.path)
    saved_at(run, 5, carried=False)
    whole = run.config.read_text()
    run.config.write_text("")
    with pytest.raises(UserError, match="electra-dist config show CONFIG") as refused:
        opened(run.path)
    assert "\n" not in str(refused.value)
    run.config.write_text(whole)
    run.facts.unlink()
    (said,) = opened(run.path)
    assert "taken for granted" in said


def test_what_is_restored_is_compared_as_ever(
    tmp_path: Path, opened: Opening, shards: RunData
) -> None:
    run = RunDir(tmp_path / "runs/one")
    opened(run.path)
    saved_at(run, 5)
    run.config.unlink()
    with pytest.raises(ConfigError, match=r"train\.seed: 1234 -> 7"):
        check_run(run, config_at(run.path, shards, **{"train.seed": 7}), shards.fingerprint)
    run.facts.unlink()
    with pytest.raises(ConfigError, match="not the data"):
        check_run(run, config_at(run.path, shards), "another")


def test_a_folder_of_somebody_else_is_not_taken_for_a_run(tmp_path: Path, opened: Opening) -> None:
    for names in (
        ("checkpoints", "wandb", "logs"),
        ("config.yaml",),
        ("run.json", "lock", "notes.txt"),
    ):
        path = tmp_path / "runs" / "-".join(names)
        path.mkdir(parents=True)
        for name in names:
            if "." in name:
                (path / name).write_text("mine: yes\n")
            else:
                (path / name).mkdir()
        before = sorted(path.rglob("*"))
        with pytest.raises(UserError, match="not a run of electra-dist"):
            opened(path)
        assert sorted(path.rglob("*")) == before
        assert all(file.read_text() == "mine: yes\n" for file in before if file.is_file())


def test_a_start_is_recorded_with_versions(tmp_path: Path, opened: Opening) -> None:
    run = RunDir(tmp_path / "runs/one")
    opened(run.path)
    opened(run.path)
    starts = json.loads(run.facts.read_text())["starts"]
    assert [start["world_size"] for start in starts] == [1, 1]
    assert {"time", "host", "python", "torch"} <= starts[0].keys()
