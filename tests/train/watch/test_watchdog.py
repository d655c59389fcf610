"""Real runs with one planted fault: a rank that hangs is named and ended,
one that fails alone ends the others.
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

from electra_dist.errors import EXIT_CRASH, EXIT_CTRL_C, EXIT_HANG, EXIT_UNFINISHED
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import life
from electra_dist.runs.progress import read_hang, read_vitals
from tests.support import PROGRAMS

ROOT = Path(__file__).resolve().parents[3]
SIZES = """
model:
  embedding_size: 32
  generator: {layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}
  discriminator: {layers: 2, hidden_size: 32, heads: 2, ffn_size: 64}
  max_positions: 64
"""
#: A step, late enough for the usual time of a step to be known to all ranks,
#: and for each to have said where it is.
STEP = 120
#: For anything to happen, on a busy machine too.
WAIT = 400
PATIENCE = "after_crash=2.0, after_unfinished=30.0, after_terminate=2.0"


class Place:
    """A folder with a very small run, and its processes."""

    def __init__(self, folder: Path, shards: Path) -> None:
        self.folder, self.run = folder, RunDir(folder / "runs/r")
        self.processes: list[subprocess.Popen[bytes]] = []
        (folder / "config.yaml").write_text(
            f"run: {{dir: runs, name: r}}\ndata: {{shards: '{shards}', row_length: 64, streams:"
            f" 4}}\n{SIZES}"
            "train: {steps: 100000, global_rows: 4, micro_rows: 2}\n"
            "optim: {lr: 1e-3, warmup_steps: 2}\nzero: {stage: 1}\nprecision: {mode: fp32}\n"
            "checkpoint: {every: 100000}\nvalidation: {every: 0}\n"
            "tracking: {every: 1, wandb: disabled}\n"
        )

    def start(
        self, fault: str, rank: int, step: int, *overrides: str, processes: int = 2
    ) -> subprocess.Popen[bytes]:
        """A launch with the fault of `faulty_train.py`; what it prints is in `output`."""
        command = [
            sys.executable,
            str(PROGRAMS / "faulty_train.py"),
            fault,
            str(rank),
            str(step),
            "config.yaml",
            *overrides,
        ]
        if processes > 1:
            code = (
                "import sys; from pathlib import Path; from launcher.local import Patience,"
                " launch_local\n"
                f"sys.exit(launch_local({command!r}, {processes}, Path('runs/r/logs'),"
                f" patience=Patience({PATIENCE})))"
            )
            command = [sys.executable, "-c", code]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output
            )
        self.processes.append(process)
        return process

    def clear(self) -> None:
        """Leave no process behind; the ranks die with their launcher."""
        for process in self.processes:
            process.kill()
            process.wait()

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def log(self, rank: int) -> str:
        return (self.run.logs / f"rank-{rank}.log").read_text()

    def step(self) -> int:
        return max((row["step"] for row in self.run.read_metrics()), default=0)

    def ending(self) -> tuple[str | None, str]:
        seen = life(self.run)
        assert seen is not None
        return seen.process.ending, seen.process.detail


@pytest.fixture
def place(tmp_path: Path, tiny_shards: Path) -> Iterator[Place]:
    made = Place(tmp_path, tiny_shards)
    yield made
    made.clear()


def until(
    condition: Callable[[], Any], process: subprocess.Popen[bytes], seconds: float = WAIT
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_rank_that_fails_alone_prints_first_and_ends_the_others(place: Place) -> None:
    assert place.start("raise", 1, 3).wait(WAIT) == EXIT_CRASH
    assert "ZeroDivisionError: a planted fault" in place.log(1)
    assert place.log(1).count("Traceback") == 1
    assert "error: rank 1 on " in place.log(0)
    assert "failed: ZeroDivisionError: a planted fault; this rank ends because of it" in place.log(
        0
    )
    assert "Traceback" not in place.log(0)
    ending, detail = place.ending()
    assert ending == "failed"
    assert "rank 1 on " in detail


def test_a_stopped_rank_is_named_and_all_end(place: Place) -> None:
    assert place.start("stop", 1, STEP, "watchdog.step_seconds=8").wait(WAIT) == EXIT_HANG
    assert "hang: rank 1 on " in place.output
    assert "has shown no sign for" in place.output
    found = read_hang(place.run)
    assert found is not None
    assert found["ranks"] == [1]
    assert found["phase"] in ("data", "step")  # its last beat may be a moment older than its end
    assert place.ending()[0] == "hung"
    stacks = sorted(place.run.logs.glob("hang-*-rank-*.txt"))
    assert [path.name.rpartition("-")[2] for path in stacks] == ["0.txt"]
    assert "all_reduce" in stacks[0].read_text()


@pytest.mark.full
@pytest.mark.parametrize("fault", ["stop", "lock"])
def test_a_silent_rank_0_is_noticed_by_the_others(place: Place, fault: str) -> None:
    assert place.start(fault, 0, STEP, "watchdog.step_seconds=8").wait(WAIT) == EXIT_HANG
    assert "hang: rank 0 on " in place.log(1)
    found = read_hang(place.run)
    assert found is not None
    assert found["ranks"] == [0]
    assert place.ending()[0] == "hung"


@pytest.mark.full
def test_a_rank_that_sleeps_leaves_its_stacks(place: Place) -> None:
    assert place.start("sleep", 1, STEP, "watchdog.step_seconds=8").wait(WAIT) == EXIT_HANG
    assert "hang: rank 1 on " in place.output
    assert "in happen, from trainer.py" in place.output
    stacks = {
        path.stem.rpartition("-")[2]: path.read_text() for path in place.run.logs.glob("hang-*.txt")
    }
    assert set(stacks) == {"0", "1"}
    assert "in happen" in stacks["1"]
    assert "in happen" not in stacks["0"]


@pytest.mark.full
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_named(place: Place, rank: int) -> None:
    assert place.start("kill", rank, STEP).wait(WAIT) == 128 + signal.SIGKILL
    assert f"rank {rank} on " in place.log(1 - rank)
    assert "is gone (killed, out of memory, its node down?)" in place.log(1 - rank)


# --- data that do not come ------------------------------------------------------------------------


def test_data_that_do_not_come_are_waited_for_only_as_long_as_nobody_asks_to_end(
    place: Place,
) -> None:
    process = place.start("read", 0, STEP, processes=1)
    until(lambda: place.step() == STEP, process)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == EXIT_UNFINISHED, place.output
    assert place.run.complete_checkpoints() == [STEP]


@pytest.mark.full
def test_data_that_do_not_come_end_the_run(place: Place) -> None:
    assert (
        place.start("read", 0, STEP, "watchdog.data_seconds=8", processes=1).wait(WAIT) == EXIT_HANG
    )
    assert "stands still for" in place.output
    assert f"in phase data, step {STEP}" in place.output


@pytest.mark.full
def test_one_of_two_ranks_without_data_saves_when_asked_to_end(place: Place) -> None:
    process = place.start("read", 1, STEP)
    until(lambda: place.step() == STEP, process)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == EXIT_UNFINISHED, place.output
    assert place.run.complete_checkpoints() == [STEP]


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_hung_rank_does_not_keep_a_run_that_is_asked_to_end(place: Place) -> None:
    process = place.start("sleep", 1, STEP)
    until(lambda: place.step() == STEP, process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == EXIT_HANG, place.output
    assert "hang: rank 1 on " in place.output


@pytest.mark.full
def test_a_second_ctrl_c_ends_a_process_that_cannot_hear_it(place: Place) -> None:
    process = place.start("sleep", 0, STEP, processes=1)
    until(lambda: place.step() == STEP, process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT) == EXIT_CTRL_C


@pytest.mark.full
def test_a_signal_during_a_long_start_ends_it_as_interrupted(place: Place) -> None:
    process = place.start("start", 1, 0)
    until(lambda: place.run.process.exists(), process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == EXIT_UNFINISHED, place.output
    assert place.ending()[0] == "interrupted"


# --- what moves is no hang ------------------------------------------------------------------------


@pytest.mark.full
def test_a_first_step_that_takes_long_is_no_hang_and_status_says_what_is_done(place: Place) -> None:
    process = place.start("sleep", 1, 0, "watchdog.step_seconds=1")
    until(lambda: place.run.progress.exists(), process)
    time.sleep(8)
    assert process.poll() is None
    vitals = read_vitals(place.run)
    assert vitals is not None
    assert (vitals.step, vitals.step_age, vitals.limit) == (0, None, 1800.0)
    assert json.loads(place.run.process.read_text())["ending"] is None
