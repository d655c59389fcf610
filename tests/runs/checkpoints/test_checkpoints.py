"""What a run has saved, without torch: whole or not, kept or removed, remembered;
no folder makes us hang.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from electra_dist.cli import main as cli
from electra_dist.errors import CheckpointError
from electra_dist.runs import lock
from electra_dist.runs.checkpoints import (
    carried,
    file_problems,
    list_checkpoints,
    prune,
    read_manifest,
    removable,
    saved_steps,
    verify_checkpoint,
)
from electra_dist.runs.checkpoints import manifest as format_
from electra_dist.runs.checkpoints.members import finish, tensor_header, write_member, write_text
from electra_dist.runs.checkpoints.memory import (
    check_link,
    check_nothing_is_lost,
    note_failed,
    note_saved,
    note_start,
    saving,
    start_over,
)
from electra_dist.runs.directory import RunDir

FILE = "generator/rank-00000.safetensors"
ELEMENTS = 6


def make(
    run: RunDir, step: int, *, healthy: bool | None = None, carries: dict[str, str] | None = None
) -> Path:
    """A whole checkpoint of one parameter."""
    folder = run.checkpoint(step)
    (folder / "generator").mkdir(parents=True)
    kinds = ("weight", "exp_avg", "exp_avg_sq")
    header = tensor_header({f"{kind}/w": ELEMENTS for kind in kinds})
    entries = {FILE: write_member(folder / FILE, [header, os.urandom(4 * ELEMENTS * len(kinds))])}
    texts = {format_.TRAINER: json.dumps({"step": step}), **(carries or {})}
    entries |= {name: write_text(folder / name, text) for name, text in texts.items()}
    parameters = format_.parameter_entries({"w": (2, 3)}, [("w", format_.Slice(FILE, 0, ELEMENTS))])
    finish(
        folder,
        format_.CheckpointManifest(
            version=format_.VERSION,
            step=step,
            world_size=1,
            healthy=healthy,
            reason="" if healthy is not False else "loss 1e9",
            files=entries,
            networks={"generator": format_.NetworkEntry(scalars={}, parameters=parameters)},
        ),
    )
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and its checksum, as somebody would who means it."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    text = json.dumps(content)
    (folder / "manifest.json").write_text(text)
    (folder / "COMPLETE").write_text(hashlib.sha256(text.encode()).hexdigest() + "\n")


@pytest.fixture
def saved(tmp_path: Path) -> RunDir:
    """A run directory with a configuration, facts and no checkpoint."""
    content = {
        "data": {"shards": "s"},
        "model": {"preset": "tiny"},
        "optim": {"warmup_steps": 0},
        "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
        "checkpoint": {"every": 10, "keep": 2, "milestones_every": 40},
    }
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text(yaml.safe_dump(content))
    run.facts.write_text(json.dumps({"name": "r", "wandb_id": "1", "dataset_fingerprint": "f"}))
    return run


# --- which may go ---------------------------------------------------------------------------------


def test_retention_keeps_the_newest_the_milestones_and_the_newest_healthy_one(
    saved: RunDir,
) -> None:
    for step in (10, 20, 30, 40, 50, 60, 70):
        make(saved, step, healthy=step <= 30)
    assert removable(saved, 2) == [10, 20, 40, 50]
    assert removable(saved, 2, 40) == [10, 20, 50]
    assert removable(saved, 2, 40, clear=25) == [10, 50]
    assert prune(saved, 2, 40) == [10, 20, 50]
    assert saved_steps(saved) == [30, 40, 60, 70]
    assert prune(saved, 2, 40) == []


def test_what_is_not_complete_does_not_count_as_kept(saved: RunDir) -> None:
    for step in (10, 20, 30):
        make(saved, step)
    (saved.checkpoint(30) / "COMPLETE").unlink()
    assert removable(saved, 1) == [10]
    assert removable(saved, 2) == []


def test_a_checkpoint_of_the_first_format_is_still_read(saved: RunDir) -> None:
    folder = make(saved, 10)

    def first_format(content: dict[str, Any]) -> None:
        content["version"] = 1
        del content["healthy"], content["reason"]

    rewrite(folder, first_format)
    assert read_manifest(folder).healthy is None
    assert verify_checkpoint(saved, 10).whole
    rewrite(folder, lambda content: content.update(version=3))
    with pytest.raises(
        CheckpointError, match="format version 3, this release reads version 1 and 2"
    ):
        read_manifest(folder)


# --- hostile folders ------------------------------------------------------------------------------


def _as(folder: Path, name: str, make_it: Callable[[Path], Any]) -> None:
    (folder / name).unlink()
    make_it(folder / name)


def _links_folder(folder: Path) -> None:
    (folder / "generator").rename(folder.parent / "elsewhere")
    (folder / "generator").symlink_to("../elsewhere")


def _names(name: str) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        content["files"][name] = content["files"].pop("trainer.json")

    return lambda folder: rewrite(folder, change)


def _claims(length: int, shape: list[int]) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        parameter = content["networks"]["generator"]["parameters"]["w"]
        parameter["slices"], parameter["shape"] = [[FILE, 0, length]], shape

    return lambda folder: rewrite(folder, change)


def _grows(folder: Path) -> None:
    os.truncate(folder / FILE, 10**13)  # a hole: it takes no disk


#: What somebody may have put there -> what is said of it.
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "COMPLETE is a FIFO": (
        lambda f: _as(f, "COMPLETE", os.mkfifo),
        "COMPLETE: is not a regular file",
    ),
    "manifest is a FIFO": (
        lambda f: _as(f, "manifest.json", os.mkfifo),
        "manifest.json: is not a regular file",
    ),
    "manifest is a device": (
        lambda f: _as(f, "manifest.json", lambda p: p.symlink_to("/dev/zero")),
        "manifest.json: is a link, expected a regular file",
    ),
    "COMPLETE is endless": (
        lambda f: os.truncate(f / "COMPLETE", 10**12),
        "larger than 1,024 bytes",
    ),
    "weights are a FIFO": (lambda f: _as(f, FILE, os.mkfifo), "is not a regular file"),
    "weights are a link": (
        lambda f: _as(f, FILE, lambda p: p.symlink_to("/dev/zero")),
        "is a link or a special file",
    ),
    "weights lie in a link": (_links_folder, "is a link or a special file"),
    "weights are a folder": (lambda f: _as(f, FILE, os.mkdir), "is not a regular file"),
    "weights have grown": (_grows, "has 10000000000000 bytes instead of"),
    "a name above": (_names("../../../etc/passwd"), "which does not lie in the checkpoint"),
    "an absolute name": (_names("/etc/passwd"), "which does not lie in the checkpoint"),
    "a device by name": (_names("/dev/zero"), "which does not lie in the checkpoint"),
    "a hidden way up": (_names("generator/../../x"), "which does not lie in the checkpoint"),
    "a huge tensor": (_claims(10**15, [10**15]), "claims 4,000,000,000,000,000 bytes of weights"),
    "a negative length": (_claims(-6, [6]), "do not make up its shape"),
    "a shape of its own": (_claims(6, [10**9, 10**9]), "do not make up its shape"),
    "too many numbers": (_claims(6, [1] * 50 + [6]), "do not make up its shape"),
    "no manifest": (
        lambda f: rewrite(f, lambda content: content.clear()),
        "is not a checkpoint manifest",
    ),
    "nested deeply": (
        lambda f: rewrite(
            f, lambda content: content.update(reason=json.loads("[" * 900 + "]" * 900))
        ),
        "is not a checkpoint manifest",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_an_answer_at_once(saved: RunDir, name: str) -> None:
    """In 2 GB of memory and without waiting: what hangs here ends by the time limit of the test."""
    HOSTILE[name][0](make(saved, 10))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 2 * 10**9, before[1]))
    try:
        (listed,) = list_checkpoints(saved)
        verified = verify_checkpoint(saved, 10)
        removable(saved, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not verified.whole
    assert HOSTILE[name][1] in verified.problems[0]
    assert not listed.whole


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_the_tensors_of_a_file_are_bounded_by_it(saved: RunDir) -> None:
    from electra_dist.checkpoint import tensors

    for header in (
        {"weight/w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"weight/w": {"dtype": "F32", "shape": [6], "data_offsets": [-24, 0]}},
        {"weight/w": {"dtype": "F64", "shape": [6], "data_offsets": [0, 48]}},
        {"weight/w": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}},
        {"other": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}},
        [1, 2],
    ):
        folder = make(saved, 10)
        text = json.dumps(header).encode()
        (folder / FILE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(100))
        content = (folder / FILE).read_bytes()
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        rewrite(folder, lambda manifest, entry=entry: manifest["files"].update({FILE: entry}))
        with pytest.raises(
            CheckpointError, match=r"is no safetensors file|does not hold 6 elements"
        ):
            tensors.read_network(folder, "generator")
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


# --- what the run remembers -----------------------------------------------------------------------


def test_a_run_that_has_saved_and_finds_nothing_says_so(saved: RunDir) -> None:
    note_start(saved, None)
    check_nothing_is_lost(saved, 10)
    note_saved(saved, 20)
    with pytest.raises(
        CheckpointError,
        match=r"checkpoints: is not there, but this run has saved step 20"
        r" .*`start_over`",
    ):
        check_nothing_is_lost(saved, 10)
    saved.checkpoints.mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoints: holds no checkpoint, but"):
        check_nothing_is_lost(saved, 10)
    note_start(saved, None)
    check_nothing_is_lost(saved, 10)
    assert saved.read_facts().wandb_id == "1"


def test_a_run_of_older_software_is_judged_by_what_it_logged(saved: RunDir) -> None:
    saved.metrics.write_text('{"step": 9}\n')
    check_nothing_is_lost(saved, 10)
    saved.metrics.write_text('{"step": 9}\n{"step": 10}\n')
    with pytest.raises(CheckpointError, match="this run has logged step 10 and saves every 10"):
        check_nothing_is_lost(saved, 10)


def test_a_link_that_leads_nowhere_is_named(saved: RunDir) -> None:
    saved.checkpoints.symlink_to("/scratch/of/somebody")
    with pytest.raises(
        CheckpointError,
        match=r"is a link to /scratch/of/somebody, which is not"
        r" there",
    ):
        check_link(saved)


def test_starting_over_forgets_only_what_is_lost(saved: RunDir) -> None:
    make(saved, 10)
    note_saved(saved, 10)
    assert not start_over(saved)
    assert saved_steps(saved) == [10]
    (saved.checkpoint(10) / FILE).unlink()
    assert start_over(saved)
    assert [entry.name[:23] for entry in saved.checkpoints.iterdir()] == ["step-00000010.set-aside"]
    check_nothing_is_lost(saved, 10)


def test_status_says_that_saving_fails(saved: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    note_failed(saved, 20, "no space left")
    note_failed(saved, 30, "no space left")
    assert cli.main(["status", str(saved.path)]) == 0
    assert "saving fails:   step 30: no space left, 2 tries in a row" in capsys.readouterr().out


def test_failures_are_counted_until_one_succeeds(saved: RunDir) -> None:
    note_saved(saved, 10)
    for step in (20, 30):
        note_failed(saved, step, "no space left")
    remembered = saving(saved)
    assert remembered
    assert (remembered.step, remembered.problem, remembered.problem_step, remembered.failures) == (
        10,
        "no space left",
        30,
        2,
    )
    note_saved(saved, 40)
    assert saving(saved).failures == 0  # type: ignore[union-attr]


def facts_of(name: str) -> str:
    return json.dumps({"name": name, "wandb_id": "1", "dataset_fingerprint": "f"})


def test_what_a_checkpoint_carries_is_read_without_the_run_s_own_files(saved: RunDir) -> None:
    make(saved, 10, carries={"config.yaml": "a: 1\n", "run.json": facts_of("old")})
    make(saved, 20, carries={"config.yaml": "a: 2\n", "run.json": facts_of("new")})
    make(saved, 30)  # of the first format: carries nothing
    damaged = make(saved, 40, carries={"config.yaml": "a: 4\n"})
    (damaged / "config.yaml").write_text("a: 5\n")
    saved.config.unlink()
    saved.facts.unlink()
    found = carried(saved)
    assert found
    assert (found.step, found.config_yaml) == (20, "a: 2\n")
    assert found.facts
    assert found.facts.name == "new"
    assert carried(RunDir(saved.path / "nothing")) is None


# --- the command ----------------------------------------------------------------------------------


def run_command(*arguments: str) -> int:
    return cli.main(["checkpoint", *arguments])


def test_list_says_why_a_checkpoint_is_not_whole(
    saved: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    make(saved, 20, healthy=True)
    make(saved, 40, healthy=False)
    (make(saved, 50) / FILE).unlink()
    (saved.checkpoints / "step-00000045.set-aside-ab12").mkdir()
    note_failed(saved, 60, "no space left")
    assert run_command("list", str(saved.path), "--json") == 0
    content = json.loads(capsys.readouterr().out)
    by_step = {entry["step"]: entry for entry in content["checkpoints"]}
    assert [by_step[step]["whole"] for step in (20, 40, 50)] == [True, True, False]
    assert [by_step[step]["healthy"] for step in (20, 40, 50)] == [True, False, None]
    assert [by_step[step]["milestone"] for step in (20, 40, 50)] == [False, True, False]
    assert by_step[50]["problems"] == [f"{FILE} is missing"]
    assert content["saving"]["problem"] == "no space left"
    assert run_command("list", str(saved.path)) == 0
    out = capsys.readouterr().out
    for words in (
        "40 milestone",
        "no: loss 1e9",
        "rank-00000.safetensors is missing",
        "set-aside-ab12",
        "saving fails",
    ):
        assert words in out


def test_verify_reads_what_list_does_not(saved: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    make(saved, 10)
    content = bytearray((make(saved, 20) / FILE).read_bytes())
    content[-1] ^= 1
    (saved.checkpoint(20) / FILE).write_bytes(content)
    assert all(facts.whole for facts in list_checkpoints(saved))
    assert run_command("verify", str(saved.path), "--json") == 2
    found = json.loads(capsys.readouterr().out)
    assert [entry["whole"] for entry in found["checkpoints"]] == [True, False]
    assert run_command("verify", str(saved.path), "--step", "10") == 0
    assert run_command("verify", str(saved.path), "--step", "15") == 2
    assert "has checkpoints of steps 10, 20" in capsys.readouterr().err


def test_prune_never_removes_the_last_whole_one(
    saved: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (10, 20, 30):
        make(saved, step)
    (saved.checkpoint(30) / FILE).unlink()
    assert run_command("prune", str(saved.path), "--keep", "1", "--dry-run") == 0
    assert "would be removed" in capsys.readouterr().out
    assert saved_steps(saved) == [10, 20, 30]
    assert run_command("prune", str(saved.path), "--keep", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept"] == [20, 30]
    assert saved_steps(saved) == [20, 30]
    assert run_command("prune", str(saved.path), "--keep", "0") == 2
    (saved.checkpoint(20) / "COMPLETE").unlink()
    assert run_command("prune", str(saved.path), "--keep", "1") == 2
    assert "no checkpoint is whole, so none is removed" in capsys.readouterr().err


def test_prune_takes_milestones_from_the_checkpoint_where_the_configuration_is_lost(
    saved: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    text = saved.config.read_text()
    for step in (10, 20, 40, 50, 60):
        make(saved, step)
    saved.config.unlink()
    assert run_command("prune", str(saved.path)) == 2
    assert "config.yaml" in capsys.readouterr().err
    make(saved, 70, carries={"config.yaml": text})
    assert run_command("prune", str(saved.path), "--keep", "1") == 0
    assert saved_steps(saved) == [40, 70]


def test_prune_removes_what_was_set_aside_when_it_is_told(saved: RunDir) -> None:
    make(saved, 10)
    aside = saved.checkpoints / "step-00000020.set-aside-ab12"
    make(saved, 20).rename(aside)
    assert run_command("prune", str(saved.path)) == 0
    assert aside.is_dir()
    assert run_command("prune", str(saved.path), "--set-aside") == 0
    assert not aside.exists()
    assert [entry.name for entry in saved.checkpoints.iterdir()] == ["step-00000010"]


def test_prune_keeps_its_hands_off_while_the_run_trains(
    saved: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (10, 20):
        make(saved, step)
    with lock.hold(saved):
        assert run_command("prune", str(saved.path), "--keep", "1") == 2
        assert "trains this run already" in capsys.readouterr().err
        assert run_command("prune", str(saved.path), "--keep", "1", "--dry-run") == 0
    assert saved_steps(saved) == [10, 20]
    assert run_command("prune", str(saved.path), "--keep", "1") == 0
    assert saved_steps(saved) == [20]


def test_the_command_needs_no_torch(saved: RunDir) -> None:
    make(saved, 10)
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "deepspeed", "safetensors", "transformers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from electra_dist.cli.main import main
for words in (["list"], ["verify"], ["prune", "--keep", "1"]):
    assert main(["checkpoint", words[0], {str(saved.path)!r}, *words[1:]]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_only_sizes_are_compared_where_nobody_listens(saved: RunDir) -> None:
    folder = make(saved, 10)
    (folder / FILE).write_bytes(bytes((folder / FILE).stat().st_size))
    manifest = read_manifest(folder)
    assert file_problems(folder, manifest, [FILE], None) == []
    assert "SHA-256 differs" in file_problems(folder, manifest, [FILE])[0]
