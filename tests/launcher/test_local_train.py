"""Real training by `launch local`:
`status` sees it, `stop` saves and ends it, a kill is not forgotten.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from electra_dist.errors import EXIT_UNFINISHED
from electra_dist.runs.directory import RunDir

ROOT = Path(__file__).resolve().parents[2]


def electra_dist(folder: Path, *words: str) -> str:
    """What `electra-dist` prints in another process."""
    command = [sys.executable, "-m", "electra_dist.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def training(tmp_path: Path, tiny_shards: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A launch of two ranks that would train for long, in `tmp_path`."""
    content = {
        "run": {"name": "one"},
        "data": {"shards": str(tiny_shards), "row_length": 64, "streams": 4},
        "model": {"preset": "tiny"},
        "train": {"steps": 100_000, "global_rows": 4, "micro_rows": 1},
        "optim": {"warmup_steps": 2},
        "zero": {"stage": 1},
        "precision": {"mode": "fp32"},
        "validation": {"every": 0},
        "tracking": {"every": 1, "wandb": "disabled"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    command = [
        sys.executable,
        "-m",
        "electra_dist.cli",
        "launch",
        "local",
        "config.yaml",
        "--processes",
        "2",
    ]
    # as in a shell of salloc
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": "16",
    }
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=output
        )
        yield process
        if process.poll() is None:
            process.kill()
            process.wait()


def refuse_a_second_writer(folder: Path, run: RunDir) -> None:
    """By every way of starting on this machine, in one sentence,
    without touching anything of the first one.
    """

    def seen() -> list[object]:
        """What only a start changes; the one that trains goes on writing the rest."""
        texts = [path.read_text() for path in (run.process, run.facts, run.config)]
        return [*texts, run.metrics.stat().st_ino, sorted(path.name for path in run.logs.iterdir())]

    before = seen()
    for words in (["train", "config.yaml"], ["launch", "local", "config.yaml", "--processes", "2"]):
        command = [sys.executable, "-m", "electra_dist.cli", *words]
        # as in a shell of salloc
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "SLURM_JOB_ID": "17",
        }
        second = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert second.returncode == 2, second.stderr
        assert second.stderr.splitlines()[-1].startswith("error: runs/one: process ")
        assert "trains this run already" in second.stderr
        assert "Traceback" not in second.stderr
    assert seen() == before


def test_status_and_stop_of_a_run_without_slurm(
    tmp_path: Path, training: subprocess.Popen[bytes]
) -> None:
    run, deadline = RunDir(tmp_path / "runs" / "one"), time.monotonic() + 300
    while not (list(run.read_metrics()) and run.progress.exists()):
        assert training.poll() is None, (tmp_path / "output").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    seen = json.loads(electra_dist(tmp_path, "status", "runs/one", "--json"))
    assert (seen["state"], seen["steps"], seen["job_id"]) == ("running", 100_000, None)
    assert "2 ranks" in seen["why"]
    assert seen["phase"]
    assert seen["sign_age"] < 120
    assert "trains this run" in seen["held_by"]
    refuse_a_second_writer(tmp_path, run)
    assert json.loads(electra_dist(tmp_path, "stop", "runs/one", "--json"))["process"]
    assert training.wait(60) == EXIT_UNFINISHED
    seen = json.loads(electra_dist(tmp_path, "status", "runs/one", "--json"))
    assert seen["state"] == "unfinished"
    assert f"interrupted, saved at step {seen['step']}" in seen["why"]
    assert seen["held_by"] is None
    assert seen["last_checkpoint"] == seen["step"] == run.complete_checkpoints()[-1]


@pytest.mark.full
def test_a_killed_run_without_slurm_is_said_to_have_failed(
    tmp_path: Path, training: subprocess.Popen[bytes]
) -> None:
    run = RunDir(tmp_path / "runs" / "one")
    deadline = time.monotonic() + 300
    while not list(run.read_metrics()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    training.send_signal(signal.SIGKILL)
    training.wait()
    time.sleep(1)
    seen = json.loads(electra_dist(tmp_path, "status", "runs/one", "--json"))
    assert seen["state"] == "failed"
    assert "gone without a word" in seen["why"]
