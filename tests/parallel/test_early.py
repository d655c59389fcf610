"""A signal while training is still being imported gives the documented status,
on one rank and on many.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

#: In the place of torch: says that it is being imported, takes its time,
#: and then makes way for the real one.
SLOW_TORCH = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parents[1]
(here / f"importing-{os.environ.get('RANK', 'alone')}").write_text(str(os.getpid()))
deadline = time.monotonic() + 60
while time.monotonic() < deadline and not (here / "go-on").exists():
    time.sleep(0.02)
sys.path.remove(str(here))
del sys.modules["torch"]
import torch
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    folder = tmp_path / "slow"
    (folder / "torch").mkdir(parents=True)
    (folder / "torch/__init__.py").write_text(SLOW_TORCH)
    return folder


def start(slow: Path, *words: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(slow), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "electra_dist.cli", *words],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def importing(slow: Path, rank: str) -> int:
    """The process that imports torch as `rank` now."""
    end = time.monotonic() + 60
    marker = slow / f"importing-{rank}"
    while not (marker.exists() and marker.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return int(marker.read_text())


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)],
)
def test_a_process_alone_ends_at_once(
    slow: Path, repo_root: Path, number: signal.Signals, status: int
) -> None:
    with start(slow, "train", str(repo_root / "configs/quickstart.yaml")) as process:
        os.kill(importing(slow, "alone"), number)
        output = process.communicate(timeout=30)[0]
    assert process.returncode == status
    assert "Traceback" not in output
    assert ("run the same command again" in output) == (status == 75)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.full)],
)
def test_ranks_end_alike_when_one_of_them_heard_it(
    slow: Path,
    tiny_shards: Path,
    tmp_path: Path,
    repo_root: Path,
    number: signal.Signals,
    status: int,
) -> None:
    words = ("launch", "local", str(repo_root / "configs/quickstart.yaml"), "--processes", "2")
    keys = (f"data.shards={tiny_shards}", f"run.dir={tmp_path / 'runs'}", "tracking.wandb=disabled")
    with start(slow, *words, *keys) as process:
        importing(slow, "0")
        os.kill(importing(slow, "1"), number)
        (slow / "go-on").touch()
        output = process.communicate(timeout=90)[0]
    assert process.returncode == status, output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("runs/*/checkpoints"))


def test_nohup_is_respected(slow: Path, repo_root: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited by the process, as from nohup
    try:
        process = start(slow, "train", str(repo_root / "configs/quickstart.yaml"))
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        pid = importing(slow, "alone")
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        os.kill(pid, signal.SIGTERM)
        assert process.wait(30) == 75


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_what_is_meant_for_training_is_heard_below_an_agent_that_is_deaf_to_it(
    slow: Path, repo_root: Path, number: signal.Signals
) -> None:
    """A job script has torchrun's agent ignore SIGUSR1, and the ranks inherit that."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = start(slow, "train", str(repo_root / "configs/quickstart.yaml"))
    finally:
        signal.signal(number, before)
    with process:
        os.kill(importing(slow, "alone"), number)
        assert process.wait(30) == 75
