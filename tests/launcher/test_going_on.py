"""`launch slurm` and the run directory: refused where somebody trains, done once where a run is to
go on otherwise.

Slurm is played by three scripts; what it does with a job is tested on the testbed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from electra_dist import config as configuration
from electra_dist.data.sources import open_data
from electra_dist.runs.checkpoints import manifest as checkpoint_manifest
from electra_dist.runs.checkpoints import members
from electra_dist.runs.checkpoints.manifest import CheckpointManifest
from electra_dist.runs.directory import RunDir
from electra_dist.runs.opening.start import open_run
from tests.support import PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_EXTRAS = str(PROGRAMS / "without_extras.py")
Type = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def desk(tmp_path: Path, tiny_shards: Path) -> Path:
    """A folder with a configuration, and a Slurm that takes every job and runs none."""
    content = {
        "run": {"name": "one"},
        "data": {"shards": str(tiny_shards), "row_length": 64, "streams": 4},
        "model": {"preset": "tiny"},
        "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
        "optim": {"lr": 1e-3, "warmup_steps": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "sbatch": f"echo $# >>{tmp_path}/submitted; wc -l <{tmp_path}/submitted",
        "squeue": "true",
        "scontrol": "echo 'ClusterName = toy'",
        "sinfo": "echo 'main*|4|8|16000|(null)|infinite'",
    }
    for name, body in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def typed(desk: Path, clusters: Callable[..., str]) -> Type:
    """Runs `electra-dist launch slurm config.yaml` with these words,
    where torch cannot be imported.
    """
    cluster = clusters(partition=None, preflight=False)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{desk}/bin:{os.environ['PATH']}",
        }
        command = [
            sys.executable,
            WITHOUT_EXTRAS,
            "launch",
            "slurm",
            "config.yaml",
            "--cluster",
            cluster,
            *words,
        ]
        return subprocess.run(
            command,
            cwd=desk,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def submitted(desk: Path) -> int:
    file = desk / "submitted"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def trained(desk: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """The run, with checkpoints of no networks at steps 20 and 40."""
    monkeypatch.chdir(desk)
    config = configuration.load("config.yaml")
    run = RunDir(config.run.path)
    run.path.mkdir(parents=True)
    open_run(config, open_data(config), print)
    run.metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(0, 41, 10)))
    for step in (20, 40):
        folder = run.checkpoint(step)
        folder.mkdir(parents=True)
        texts = {name: (run.path / name).read_text() for name in checkpoint_manifest.CARRIED}
        texts[checkpoint_manifest.TRAINER] = "{}"
        files = {name: members.write_text(folder / name, text) for name, text in texts.items()}
        members.finish(
            folder, CheckpointManifest(version=2, step=step, world_size=1, files=files, networks={})
        )
    return RunDir(desk / "runs/one")


def test_a_job_is_not_submitted_for_a_run_that_somebody_trains(desk: Path, typed: Type) -> None:
    code = (
        "import time; from pathlib import Path; from electra_dist.runs import lock; from"
        " electra_dist.runs.directory import RunDir\n"
        f"with lock.hold(RunDir(Path({str(desk / 'runs/one')!r}))): print('ready', flush=True);"
        " time.sleep(60)"
    )
    environment = os.environ | {"SLURM_JOB_ID": "17"}  # `launch local` in a shell of salloc
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "ready\n"
        refused = typed()
        assert refused.returncode == 2, refused
        assert f"process {trainer.pid} on " in refused.stderr
        assert "(Slurm job 17) trains this run already" in refused.stderr
        assert submitted(desk) == 0
        assert [path.name for path in (desk / "runs/one").iterdir()] == ["lock"]
        trainer.kill()
    done = typed()
    assert done.returncode == 0, done.stderr
    assert submitted(desk) == 1


def test_going_back_is_done_at_submission_and_once(
    desk: Path, typed: Type, trained: RunDir
) -> None:
    refused = typed("optim.lr=2e-3")
    assert refused.returncode == 2
    assert "--from-here" in refused.stderr
    assert submitted(desk) == 0
    for count in (1, 2):  # the second one as after a cancelled job
        done = typed("optim.lr=2e-3", "--from-step", "20")
        assert done.returncode == 0, done.stderr
        assert submitted(desk) == count
        assert trained.complete_checkpoints() == [20]
        job = configuration.load(trained.jobs / f"{count:03d}.yaml")
        assert (job.optim.lr, configuration.load(trained.config).optim.lr) == (2e-3, 2e-3)
    facts = trained.read_facts()
    assert [(entry.from_step, entry.to_step) for entry in facts.went_back] == [(40, 20)]
    assert [(entry.step, entry.key) for entry in facts.changes] == [(20, "optim.lr")]


def test_a_branch_is_made_and_submitted(desk: Path, typed: Type, trained: RunDir) -> None:
    before = sorted(trained.path.rglob("*"))
    done = typed("train.steps=200", "--branch", "two", "--from-step", "20")
    assert done.returncode == 0, done.stderr
    branch = RunDir(desk / "runs/two")
    assert branch.complete_checkpoints() == [20]
    origin = branch.read_facts().branched_from
    assert origin is not None
    assert origin.name == "one"
    assert configuration.load(branch.jobs / "001.yaml").run.name == "two"
    assert sorted(trained.path.rglob("*")) == before
    refused = typed("--branch", "two", "--array", "optim.lr=1e-3,2e-3")
    assert refused.returncode == 2
    assert "one at a time" in refused.stderr
