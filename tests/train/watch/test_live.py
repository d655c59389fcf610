"""The line that lives: what it says, that it never mixes with what is printed, and that a slow
machine is not silent where there is no terminal.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from electra_dist.parallel.signs import Doing
from electra_dist.runs.progress import LINE_VARIABLE
from electra_dist.train.watch.live import line_of, slowness
from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[3]
VARIABLES = {**os.environ, "PYTHONPATH": str(ROOT)}
STEP = Doing("step", 2, "", 9, 20, 0.0, 0.0, 41.0)

#: A stand-in for training: real signs, real lines, no torch.
TRAINS = """
import os, sys, time
from electra_dist.console import say, warn
from electra_dist.parallel import signs
from electra_dist.train.watch import live
live._DRAW_SECONDS = 0.02
live._SILENT_SECONDS = float(sys.argv[1])
live._WEEK = float(sys.argv[2])
with live.progress_line(1000, os.environ):
    signs.enter("start")
    signs.sign("building the engines")
    time.sleep(0.2)
    for step in range(12):
        signs.enter("data", step)
        signs.enter("step", step)
        time.sleep(0.1)
        signs.enter("data", step + 1)
        say(f"logged {step}" + "." * 100)
        print("half", end="", flush=True)
        time.sleep(0.05)
        print(" a line")
    say(f"rank {os.environ.get('RANK')}")
"""


@pytest.mark.parametrize(
    ("doing", "seconds", "line"),
    [
        (STEP, 2.0, "step 3 of 4,000, 41 s per step, 1d21h left, training"),
        (STEP, 100.0, "step 3 of 4,000, 41 s per step, 1d21h left, training for 1m40s"),
        (
            replace(STEP, phase="checkpoint", step=3, step_seconds=0.5),
            9.0,
            "step 3 of 4,000, 0.5 s per step, 33m18s left, saving for 0m09s",
        ),
        (
            replace(STEP, step=0, step_seconds=None, last_step=None),
            75.0,
            "step 1 of 4,000, training, 1m15s; the first steps take longest",
        ),
        (
            replace(STEP, phase="start", detail="building the engines", step_seconds=None),
            3.0,
            "starting, 0m03s (building the engines)",
        ),
        (
            replace(STEP, phase="meeting", step_seconds=None),
            8.0,
            "waiting for the other ranks, 0m08s",
        ),
        (
            replace(STEP, phase="end", step=4000),
            1.0,
            "step 4,000 of 4,000, 41 s per step, 0m00s left, ending",
        ),
    ],
)
def test_the_line_says_step_rate_time_left_and_phase(
    doing: Doing, seconds: float, line: str
) -> None:
    assert line_of(doing, 4000, seconds) == line


def test_a_run_of_weeks_is_worth_a_warning_and_any_other_is_not() -> None:
    assert slowness(1.0, 7 * 86400) is None
    sentence = slowness(41.0, 40_000)
    assert sentence is not None
    assert sentence.startswith("at 41 s per step this run takes 19.0 days here, for 40,000 steps")
    assert "electra-dist plan" in sentence


def plain(silent: float, week: float = 1e9, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRAINS, str(silent), str(week)],
        env=VARIABLES | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_without_a_terminal_a_long_silence_is_broken_by_a_line() -> None:
    lines = plain(0.04).stdout.splitlines()
    shown = [line for line in lines if line.startswith(("starting", "step"))]
    assert any(line.endswith("(building the engines)") for line in shown)
    assert any(line.startswith("step 8 of 1,000, 0.1") for line in shown)
    assert sum(line.startswith("logged") for line in lines) == 12


def test_without_a_terminal_nothing_is_added_to_lines_that_come_often() -> None:
    lines = plain(30.0).stdout.splitlines()
    assert all(line.startswith(("logged", "half a line", "rank")) for line in lines)
    assert len(lines) == 25


def test_rank_0_alone_has_a_line() -> None:
    for variables in ({"RANK": "1"}, {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}):
        assert "step" not in plain(0.04, **variables).stdout


def test_the_warning_comes_once_when_the_first_steps_are_timed() -> None:
    warnings = plain(30.0, week=10.0).stderr.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: at 0.1")
    assert plain(30.0, week=1e6).stderr == ""


def test_what_is_printed_scrolls_above_the_line_and_none_of_it_is_left() -> None:
    command = [sys.executable, "-c", TRAINS, "30", "1e9"]
    with Terminal(command, environment=VARIABLES, rows=12) as terminal:
        terminal.until(lambda lines: any("building the engines" in line for line in lines))
        terminal.until(lambda lines: any(line.startswith("step 6 of 1,000") for line in lines))
        assert terminal.wait() == 0
        seen = [line for line in terminal.scrolled() if line]
    # "logged 3...." is longer than the terminal and takes two lines
    expected = []
    for step in range(12):
        whole = f"logged {step}" + "." * 100
        expected += [whole[:80], whole[80:], "half a line"]
    assert seen == [*expected, "rank None"]


def test_ranks_that_share_a_terminal_draw_nothing_on_it() -> None:
    """As under torchrun; the other ranks would print into the line."""
    command = [sys.executable, "-c", TRAINS, "30", "1e9"]
    variables = VARIABLES | {"RANK": "0", "WORLD_SIZE": "2"}
    with Terminal(command, environment=variables) as terminal:
        assert terminal.wait() == 0
        assert b"step" not in terminal.written


def test_a_process_in_the_background_leaves_the_prompt_alone() -> None:
    command = ["bash", "-m", "-c", '"$0" -c "$1" 30 1e9 & wait', sys.executable, TRAINS]
    with Terminal(command, environment=VARIABLES) as terminal:
        assert terminal.wait() == 0
        assert b"logged 11" in terminal.written
        assert b"step" not in terminal.written


def test_another_file_under_the_number_of_the_pipe_is_not_written(tmp_path: Path) -> None:
    with (tmp_path / "precious").open("w") as file:
        subprocess.run(
            [sys.executable, "-c", TRAINS, "30", "1e9"],
            env=VARIABLES | {LINE_VARIABLE: str(file.fileno())},
            pass_fds=[file.fileno()],
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
    assert (tmp_path / "precious").read_text() == ""


def test_a_launch_shows_the_line_of_rank_0(tmp_path: Path) -> None:
    launch = (
        "import sys; from pathlib import Path; from launcher.local import launch_local\n"
        f"sys.exit(launch_local([sys.executable, '-c', {TRAINS!r}, '30', '1e9'], 2,"
        f" Path({str(tmp_path)!r})))"
    )
    with Terminal([sys.executable, "-c", launch], environment=VARIABLES, rows=12) as terminal:
        terminal.until(lambda lines: any(line.startswith("step 6 of 1,000") for line in lines))
        assert terminal.wait() == 0
        seen = [line for line in terminal.scrolled() if line]
    assert seen[-1] == "rank 0"
    assert not any(line.startswith("step") for line in seen)
    log = (tmp_path / "rank-0.log").read_text()
    assert "step 6" not in log
    assert log.count("half a line") == 12


def test_training_shows_its_line_from_the_start_to_the_last_step(
    tmp_path: Path, tiny_shards: Path
) -> None:
    content = {
        "run": {"dir": str(tmp_path), "name": "live"},
        "data": {"shards": str(tiny_shards), "row_length": 32, "streams": 4},
        "model": {"preset": "tiny"},
        "train": {"steps": 16, "global_rows": 8, "micro_rows": 8, "device": "cpu"},
        "optim": {"warmup_steps": 0},
        "tracking": {"every": 4, "wandb": "disabled"},
        "validation": {"rows": 8},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "electra_dist.cli", "train", str(config)]
    with Terminal(command, environment=VARIABLES, rows=24) as terminal:
        terminal.until(lambda lines: any("loading PyTorch" in line for line in lines))
        terminal.until(lambda lines: any("s per step, " in line for line in lines), timeout=120)
        assert terminal.wait(timeout=120) == 0
        seen = terminal.scrolled()
    assert not any("s per step" in line or line.startswith("starting") for line in seen)
    assert sum("held out" in line for line in seen) >= 2
    log = (tmp_path / "live" / "logs" / "rank-0.log").read_text()
    assert "s per step" not in log
    assert "\r" not in log
    assert "finished at step 16" in log
