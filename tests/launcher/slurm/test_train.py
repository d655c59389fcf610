"""Real training as Slurm jobs: two nodes, ZeRO-3, a real time limit,
the same losses as without one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from electra_dist.runs.directory import RunDir
from launcher.find import find_run
from launcher.records import events
from launcher.slurm.submit import Request, Submission, prepare, submit
from launcher.status import status
from launcher.stop import stop
from tests.support import PROGRAMS
from tests.support.disks import tiny_disk

SLOW_TRAIN = (str(PROGRAMS / "slow_train.py"),)
STEPS = 60
NETWORKS = {
    "embedding_size": 32,
    "generator": {"layers": 1, "hidden_size": 16, "heads": 1, "ffn_size": 32},
    "discriminator": {"layers": 2, "hidden_size": 32, "heads": 2, "ffn_size": 64},
    "max_positions": 64,
}


@pytest.fixture(scope="module")
def launch(
    testbed: Any,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_shards: Path,
    clusters: Callable[..., str],
) -> Callable[..., Submission]:
    """Submits a training run of the tiny model on two nodes."""
    folder = tmp_path_factory.mktemp("train")
    content = {
        "run": {"dir": str(folder / "runs"), "name": "r"},
        "data": {"shards": str(tiny_shards), "row_length": 64, "streams": 4},
        "model": NETWORKS,
        "train": {"steps": 12, "global_rows": 4, "micro_rows": 1},
        "optim": {"lr": 1e-3, "warmup_steps": 2},
        "zero": {"stage": 3, "persistence_threshold": 0},
        "precision": {"mode": "fp32"},
        "checkpoint": {"every": 1000},
        "validation": {"every": 0},
        "tracking": {"every": 1, "wandb": "offline"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))

    def start(
        name: str, *overrides: str, profile: dict[str, Any] | None = None, **changes: Any
    ) -> Submission:
        cluster = clusters(**({"straggler_seconds": 30, "preflight": False} | (profile or {})))
        request = Request(**({"cluster": cluster, "nodes": "2"} | changes))
        return submit(prepare(folder / "config.yaml", [f"run.name={name}", *overrides], request))

    return start


@pytest.fixture(scope="module")
def limited(launch: Callable[..., Submission]) -> Submission:
    """A run that is longer than its time slot;
    submitted before the others, so that they overlap.
    """
    two_minutes = {"time_limit": "2", "signal_ahead_seconds": 60}
    return launch("limited", f"train.steps={STEPS}", profile=two_minutes, program=SLOW_TRAIN)


def until(run: RunDir, condition: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        logs = "\n".join(path.read_text()[-3000:] for path in sorted(run.logs.glob("*.log")))
        assert time.monotonic() < deadline, f"{status(run)}\n{logs}"
        assert status(run).state in ("waiting", "running", "ending"), f"{status(run)}\n{logs}"
        time.sleep(0.2)


def last_step(run: RunDir) -> int:
    return max((row["step"] for row in run.read_metrics()), default=0)


def losses(run: RunDir) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key == "step" or key.startswith("loss/")}
        for row in run.read_metrics()
        if "loss/generator" in row
    ]


def end_of(run: RunDir) -> str:
    try:
        until(run, lambda: status(run).state == "finished")
    except AssertionError:
        if status(run).state != "finished":
            raise
    return status(run).state


def test_status_logs_and_stop_work_on_live_training(
    limited: Submission, launch: Callable[..., Submission]
) -> None:
    submission = launch("live", "train.steps=100000")
    run = find_run(submission.job_ids[0])
    until(run, lambda: last_step(run) >= 3)
    now = status(run)
    assert (now.state, now.steps) == ("running", 100000)
    assert now.real_tokens_per_s
    assert now.seconds_left
    stop(run)
    deadline = time.monotonic() + 60
    while status(run).state != "stopped":
        assert time.monotonic() < deadline, status(run)
        time.sleep(0.2)
    assert run.complete_checkpoints() == [last_step(run)]


def test_a_run_beyond_its_time_limit_gives_the_losses_of_one_without(
    limited: Submission, launch: Callable[..., Submission]
) -> None:
    """Time limit, signal, checkpoint, requeue, resume, end:
    one curve, one W&B run, the same losses to the last bit.
    """
    straight = launch("straight", f"train.steps={STEPS}")
    run, other = RunDir(limited.runs[0]), RunDir(straight.runs[0])
    assert end_of(other) == "finished"
    assert end_of(run) == "finished"
    noted = events(run, "001")
    first = [event.kind for event in noted].index("requeue")
    assert [event.kind for event in noted][:3] == ["start", "signal", "requeue"]
    assert "time limit ahead" in noted[first - 1].detail
    assert noted[-1].kind == "finished"
    restart = [event for event in noted if event.kind == "start"][1]
    assert 0 < int(restart.detail.rsplit("saved at step ", 1)[1]) < STEPS
    assert [row["step"] for row in losses(run)] == list(range(1, STEPS + 1))
    assert losses(run) == losses(other)
    facts = json.loads(run.facts.read_text())
    assert {start["world_size"] for start in facts["starts"]} == {2}
    assert len(facts["starts"]) == 1 + sum(event.kind == "requeue" for event in noted)
    offline = [path.name.rsplit("-", 1)[1] for path in (run.path / "wandb").glob("offline-run-*")]
    assert set(offline) == {facts["wandb_id"]}


@pytest.mark.full
def test_torchrun_starts_the_ranks_and_hears_the_signal(
    launch: Callable[..., Submission], testbed: Any
) -> None:
    submission = launch("torchrun", "train.steps=100000", torchrun=True)
    run = RunDir(submission.runs[0])
    until(run, lambda: last_step(run) >= 3)
    stop(run)
    deadline = time.monotonic() + 90
    while status(run).state != "stopped":
        assert time.monotonic() < deadline, status(run)
        time.sleep(0.2)
    assert run.complete_checkpoints() == [last_step(run)]
    assert sys.executable in (run.jobs / "001.sbatch").read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path, "32m") as place:
        yield place


@pytest.mark.full
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("preflight", [False, True])
def test_a_disk_that_fills_after_the_first_checkpoint_ends_the_run_with_the_reason(
    launch: Callable[..., Submission], small_disk: Path, preflight: bool
) -> None:
    """Three starts at most, whatever notices first:
    a checkpoint, a log, the preflight; no node is blamed.
    """
    keys = (
        f"run.dir={small_disk}",
        "checkpoint.every=5",
        "train.steps=60",
        "tracking.wandb=disabled",
    )
    submission = launch("full", *keys, profile={"preflight": preflight}, program=SLOW_TRAIN)
    run = RunDir(submission.runs[0])
    until(run, run.complete_checkpoints, 500)
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={small_disk}/filler", "bs=64k"],
        capture_output=True,
        check=False,
    )
    deadline = time.monotonic() + 900
    while status(run).state != "failed":
        assert time.monotonic() < deadline, status(run)
        time.sleep(0.5)
    why = status(run).why or ""
    assert "3 crashes without a new checkpoint" in why
    assert "no space left" in why
    noted = events(run, "001")
    assert (
        sum(event.kind in ("start", "preflight") and event.detail != "passed" for event in noted)
        <= 6
    )
    assert sum(event.kind == "requeue" for event in noted) == 2
    assert not [event for event in noted if event.kind == "exclude"]


def process_of(rank: int, job_id: str) -> int:
    """The training process of a rank of a job on this machine."""
    wanted = {f"SLURM_JOB_ID={job_id}".encode(), f"SLURM_PROCID={rank}".encode()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                program, variables = (
                    (entry / "cmdline").read_bytes(),
                    (entry / "environ").read_bytes().split(b"\0"),
                )
            except OSError:
                continue
            if (
                b"electra_dist.cli" in program
                and b"bash" not in program
                and wanted <= set(variables)
            ):
                return int(entry.name)
    raise AssertionError(f"no rank {rank} of job {job_id}")


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_a_stopped_rank_is_named_and_its_node_left_out(launch: Callable[..., Submission]) -> None:
    keys = (
        "train.steps=100000",
        "checkpoint.every=5",
        "watchdog.step_seconds=30",
        "watchdog.data_seconds=30",
    )
    submission = launch("hang", *keys, "tracking.wandb=disabled")
    run = RunDir(submission.runs[0])
    until(run, run.complete_checkpoints, 500)
    os.kill(process_of(1, submission.job_ids[0]), signal.SIGSTOP)
    until(run, lambda: [event for event in events(run, "001") if event.kind == "start"][1:], 500)
    noted = events(run, "001")
    assert [event.kind for event in noted[:5]] == ["start", "hang", "requeue", "exclude", "start"]
    suspect = noted[3].detail
    assert f"rank 1 on {suspect} has shown no sign for" in noted[1].detail
    assert noted[2].detail.startswith("hang, exit code 69 (rank 1 on")
    assert suspect not in noted[4].detail
    assert list(run.logs.glob("hang-*-rank-0.txt"))
    stop(run)
