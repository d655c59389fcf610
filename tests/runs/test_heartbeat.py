"""Whether a process trains a run: alive, ended in one of three ways, or gone without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from electra_dist.errors import UserError
from electra_dist.runs import heartbeat
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import STALE_SECONDS, Heartbeat, life
from launcher.records import JobRecord
from launcher.slurm.preconditions import check_free
from launcher.status import status
from launcher.stop import stop

pytestmark = pytest.mark.usefixtures("no_slurm")


@pytest.fixture
def training(run: RunDir) -> Callable[[str], subprocess.Popen[str]]:
    """Starts a process with a heartbeat that then does what it is told."""

    def start(then: str) -> subprocess.Popen[str]:
        code = (
            "import signal, sys, time; from pathlib import Path\n"
            "from electra_dist.runs.heartbeat import Heartbeat; from electra_dist.runs.directory"
            " import RunDir\n"
            "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\n"
            f"with Heartbeat(RunDir(Path({str(run.path)!r})), 2) as beat:\n    print('ready',"
            f" flush=True)\n    {then}\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    return start


def altered(run: RunDir, age: float = 0.0, **changes: Any) -> None:
    """The file with other content, its pulse `age` seconds old."""
    run.process.write_text(json.dumps(json.loads(run.process.read_text()) | changes))
    os.utime(run.process, (time.time() - age,) * 2)


def test_a_process_outside_of_slurm_is_seen_and_killed_it_is_not_forgotten(
    run: RunDir, training: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = training("time.sleep(60)")
    now = status(run)
    assert (now.state, now.job_id, now.step) == ("running", None, 25)
    assert f"process {process.pid} on " in (now.why or "")
    assert "2 ranks" in (now.why or "")
    with pytest.raises(UserError, match=f"process {process.pid} on .* trains this run already"):
        check_free([run.path])
    process.send_signal(signal.SIGKILL)
    process.wait()
    now = status(run)
    assert now.state == "failed"
    assert f"process {process.pid} on " in (now.why or "")
    assert "gone without a word" in (now.why or "")
    check_free([run.path])
    with pytest.raises(UserError, match="no process on this machine trains it"):
        stop(run)


def test_stop_tells_the_process(
    run: RunDir, training: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = training("time.sleep(60)")
    assert stop(run).process == process.pid
    process.wait(20)
    assert status(run).state != "running"


@pytest.mark.parametrize(
    ("then", "state", "why"),
    [
        ("beat.end('finished')", "finished", None),
        (
            "beat.end('interrupted', 'saved at step 7')",
            "unfinished",
            "interrupted, saved at step 7, 2",
        ),
        (
            "beat.end('interrupted', 'before anything')",
            "unfinished",
            "interrupted, before anything, 2",
        ),
        ("raise ValueError('loss is nan\\nsecond line')", "failed", ": ValueError: loss is nan"),
    ],
)
def test_how_it_ended_is_kept(
    run: RunDir,
    training: Callable[[str], subprocess.Popen[str]],
    then: str,
    state: str,
    why: str | None,
) -> None:
    training(then).wait(20)
    now = status(run)
    assert now.state == state
    assert (why is None and now.why is None) or (why or "") in (now.why or "")


def test_a_number_that_the_kernel_gave_to_another_process_is_not_taken_for_it(run: RunDir) -> None:
    with Heartbeat(run, 1):
        seen = life(run)
        assert seen is not None
        assert seen.running
        assert seen.is_here
        altered(run, ticks=(seen.process.ticks or 0) - 5)
        seen = life(run)
        assert seen is not None
        assert not seen.running


def test_a_process_elsewhere_lives_as_long_as_its_pulse(run: RunDir) -> None:
    with Heartbeat(run, 1):
        altered(run, place="another machine", pid=1)
        seen = life(run)
        assert seen is not None
        assert seen.running
        assert not seen.is_here
        with pytest.raises(UserError, match="is stopped on its own machine"):
            stop(run)
        altered(run, age=STALE_SECONDS + 5)
        seen = life(run)
        assert seen is not None
        assert not seen.running


def test_the_pulse_beats(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PULSE_SECONDS", 0.05)
    with Heartbeat(run, 1):
        os.utime(run.process, (0, 0))
        deadline = time.monotonic() + 10
        while run.process.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_newest_of_a_job_and_a_process_is_told(run: RunDir) -> None:
    run.jobs.mkdir()
    JobRecord("001", ("7",), "site", (2, 2), 8, "60", "2030-01-01T00:00:00+00:00").save(run)
    events = run.jobs / "001.events"
    events.write_text("2001-01-01T00:00:00+0000\t7\t0\tstopped\tsaved\n")
    assert status(run).state == "stopped"
    with Heartbeat(run, 1, job_id="7"):  # the job itself, on a cluster that is out of reach
        assert status(run).state == "running"
    assert status(run).state == "stopped"
    with Heartbeat(run, 1) as beat:
        beat.end("interrupted")
    assert status(run).state == "unfinished"
    events.write_text("2100-01-01T00:00:00+0000\t7\t0\tstopped\tsaved\n")
    assert status(run).state == "stopped"


def test_a_file_that_is_not_ours_says_nothing(run: RunDir) -> None:
    for content in ("", "[]", "{}", '{"pid": 1}', "{"):
        run.process.write_text(content)
        assert life(run) is None
        assert status(run).state == "idle"
