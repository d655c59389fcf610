"""`electra-dist launch slurm` as it is typed on a login node:
without torch, in a folder with a configuration.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from electra_dist import config as configuration
from electra_dist.cli import main as cli
from launcher.slurm.clusters import load_cluster
from tests.support import PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_EXTRAS = str(PROGRAMS / "without_extras.py")
Type = Callable[..., "subprocess.CompletedProcess[str]"]
#: What a user might write where a name, a path or a number belongs.
NASTY = (
    "a b",
    "it's",
    "$(touch PWNED)",
    "`touch PWNED`",
    "; touch PWNED",
    "a\ntouch PWNED",
    "a\n#SBATCH --wrap=x",
    "-x",
)


@pytest.fixture
def desk(tmp_path: Path, tiny_shards: Path) -> Path:
    """A folder with a configuration and shards."""
    shutil.copytree(tiny_shards, tmp_path / "shards")
    content = {
        "run": {"name": "one"},
        "data": {"shards": "shards", "row_length": 64, "streams": 4},
        "model": {"preset": "tiny"},
        "train": {"steps": 12, "global_rows": 4, "micro_rows": 1},
        "optim": {"warmup_steps": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


@pytest.fixture
def typed(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Type:
    """Runs `electra-dist` with these words in that folder, where torch cannot be imported."""
    home = tmp_path_factory.mktemp("home")

    def run(*words: str, answers: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
        }
        command = [sys.executable, WITHOUT_EXTRAS, *words]
        return subprocess.run(
            command,
            cwd=desk,
            env=environment | variables,
            input=answers,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error that a refused command prints, and nothing else."""
    assert done.returncode == 2, done
    assert not done.stdout
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_a_dry_run_prints_the_script_and_the_plan_beside_it_and_touches_nothing(
    testbed: Any, desk: Path, typed: Type, clusters: Callable[..., str]
) -> None:
    before = sorted(desk.rglob("*"))
    profile = clusters(gpu="h100", gpus_per_node=2)
    words = ("launch", "slurm", "config.yaml", "--cluster", profile, "--nodes", "1-2", "--dry-run")
    done = typed(*words, SBATCH_TIMELIMIT="5")
    assert done.returncode == 0, done.stderr
    (note,) = (
        line
        for line in done.stderr.splitlines()
        if line.startswith("note: not taken over from this shell: ")
    )
    assert "SBATCH_TIMELIMIT=5" in note
    assert "; the profile and the options of `launch slurm` say what the job gets" in note
    assert "disk: " in done.stderr
    assert done.stdout.startswith("#!/bin/bash\n")
    assert done.stdout.endswith("main\nexit\n")
    assert "plan" not in done.stdout.split("# --- the same for every job")[0]
    assert "h100" in done.stderr
    assert "fits" in done.stderr
    assert "time slot" in done.stderr
    assert "a checkpoint: " in done.stderr
    assert sorted(desk.rglob("*")) == before


def test_what_the_plan_forbids_is_not_submitted_unless_the_user_insists(
    testbed: Any, desk: Path, typed: Type, clusters: Callable[..., str]
) -> None:
    profile = clusters(
        gpu="h100", gpus_per_node=2, checkpoint_write_mb_s=1, signal_ahead_seconds=30
    )
    # 12 bytes for each of the some 34 million parameters of a large enough model
    sizes = (
        "model.embedding_size=256",
        "model.discriminator.layers=12",
        "model.discriminator.hidden_size=512",
    )
    words = (
        "launch",
        "slurm",
        "config.yaml",
        *sizes,
        "model.discriminator.heads=8",
        "--cluster",
        profile,
    )
    assert "do not fit between the signal and the time limit" in one_line(typed(*words))
    assert not (desk / "runs").exists()
    assert typed(*words, "--dry-run", "--ignore-plan").returncode == 0


def started(desk: Path, **changes: Any) -> None:
    """The run of this folder as if it had trained before."""
    manifest = json.loads((desk / "shards" / "manifest.json").read_text())
    run = desk / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        configuration.resolved_yaml(configuration.load(desk / "config.yaml"))
    )
    facts = {
        "name": "one",
        "wandb_id": "0123abcd",
        "dataset_fingerprint": manifest["fingerprint"],
        "starts": [],
    }
    (run / "run.json").write_text(json.dumps(facts | changes))


def test_a_changed_configuration_is_refused_before_submission(
    testbed: Any, desk: Path, typed: Type, clusters: Callable[..., str]
) -> None:
    started(desk)
    words = ("launch", "slurm", "config.yaml", "--cluster", clusters())
    message = one_line(typed(*words, "optim.lr=3e-4"))
    assert "runs/one: holds a run of another configuration (optim.lr: " in message
    assert "-> 0.0003" in message
    assert "--from-here" in message
    assert "--branch NEWNAME" in message
    assert sorted(path.name for path in (desk / "runs" / "one").iterdir()) == [
        "config.yaml",
        "run.json",
    ]
    assert testbed.run("squeue", "-h", "--name=one") == ""
    assert typed(*words, "zero.stage=1", "--dry-run").returncode == 0  # may change


def test_other_data_is_refused_before_submission(
    testbed: Any, desk: Path, typed: Type, clusters: Callable[..., str]
) -> None:
    started(desk, dataset_fingerprint="0123456789abcdef")
    message = one_line(typed("launch", "slurm", "config.yaml", "--cluster", clusters()))
    assert "data.shards = shards: not the data that runs/one was trained on" in message


def test_damaged_shards_are_refused_before_submission(
    testbed: Any, desk: Path, typed: Type, clusters: Callable[..., str]
) -> None:
    shard = next((desk / "shards").glob("train-*.tar"))
    shard.write_bytes(shard.read_bytes()[:-512])
    message = one_line(typed("launch", "slurm", "config.yaml", "--cluster", clusters()))
    assert f"{shard}: has " in message


def test_a_new_profile_is_asked_for_saved_and_used(testbed: Any, desk: Path, typed: Type) -> None:
    # partition, GPUs, cores, kind of GPU, how GPUs are asked for,
    # account, time limit, environment, name
    answers = "\n2\n2\nH100\nnone\n\n30\n\nmine\n"
    done = typed("launch", "slurm", "--new-profile", answers=answers)
    assert done.returncode == 0, done.stderr
    assert "mine.yaml: saved" in done.stdout
    path = Path(done.stdout.splitlines()[-1].rsplit("]: ", 1)[-1].split(": saved")[0])
    profile = load_cluster(str(path))
    assert (profile.partition, profile.gpus_per_node, profile.cores_per_task) == ("main", 2, 2)
    assert (profile.gpu, profile.gpu_request, profile.time_limit) == ("h100", "none", "30")
    used = typed("launch", "slurm", "config.yaml", "--cluster", "mine", "--dry-run")
    assert used.returncode == 0, used.stderr
    assert "#SBATCH --time=30\n" in used.stdout
    again = typed("launch", "slurm", "--new-profile", answers=answers)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    for wrong, message in (
        ("gpuu\n", "partition gpuu: there is none"),
        ("\nmany\n", "expected a number"),
        ("", "ended"),
    ):
        done = typed("launch", "slurm", "--new-profile", answers=wrong)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done
        assert message in done.stderr


@pytest.fixture
def main(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The same in this process, which is quicker: exit status, output, errors."""
    monkeypatch.chdir(desk)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            status = cli.main(words)
        except SystemExit as wrong:  # the parser's way to refuse
            status = int(wrong.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "option", ["--cluster", "--nodes", "--time", "--exclude", "--after", "--array", "--chain"]
)
def test_no_option_becomes_code(
    testbed: Any, desk: Path, main: Callable[..., Any], clusters: Callable[..., str], option: str
) -> None:
    for text in NASTY:
        cluster = [] if option == "--cluster" else ["--cluster", clusters()]
        status, out, err = main(
            "launch", "slurm", "config.yaml", "--dry-run", f"{option}={text}", *cluster
        )
        assert (status, out) == (2, ""), text
        assert "error: " in err
    assert not list(desk.rglob("PWNED*"))


@pytest.mark.parametrize(
    "key",
    [
        "run.name",
        "run.dir",
        "data.shards",
        "optim.lr",
        "tracking.project",
        "tracking.entity",
        "tracking.tags",
    ],
)
def test_no_override_becomes_code(
    testbed: Any, desk: Path, main: Callable[..., Any], clusters: Callable[..., str], key: str
) -> None:
    accepted = 0
    for text in NASTY:
        value = json.dumps([text] if key == "tracking.tags" else text)
        words = (
            "launch",
            "slurm",
            "config.yaml",
            f"{key}={value}",
            "--cluster",
            clusters(),
            "--dry-run",
        )
        status, out, err = main(*words)
        assert status in (0, 2), err
        if status == 0:
            accepted += 1
            head = out.split("# --- the same for every job")[0]
            ran = subprocess.run(
                ["bash", "-c", head], cwd=desk, capture_output=True, text=True, check=False
            )
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
            assert "--wrap" not in "".join(
                line for line in head.splitlines() if line.startswith("#SBATCH")
            )
    assert accepted == {
        "run.dir": 6,
        "tracking.project": 8,
        "tracking.entity": 8,
        "tracking.tags": 8,
    }.get(key, 0), key
    assert not list(desk.rglob("PWNED*"))


def test_every_run_is_listed_when_none_is_named(desk: Path, typed: Type) -> None:
    assert "runs: no run in it" in one_line(typed("status"))
    started(desk)
    sweep = desk / "runs" / "sweep" / "lr-1"
    shutil.copytree(desk / "runs" / "one", sweep)
    listed = json.loads(typed("status", "--json").stdout)
    assert [(one["run"], one["state"]) for one in listed] == [
        ("runs/one", "idle"),
        ("runs/sweep/lr-1", "idle"),
    ]
    shown = typed("status").stdout
    assert "runs/one" in shown
    assert "idle" in shown
