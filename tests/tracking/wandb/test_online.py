"""Online, against a stand-in for the server: every row arrives once,
through dying services, lost networks, no key.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import cut_back
from electra_dist.tracking import sinks
from electra_dist.tracking.sinks import Tracker
from electra_dist.tracking.wandb import MirrorError, mirror_once
from tests.support.offline import files, points, services, wait_for
from tests.support.wandb_runs import note_rollback
from tests.support.wandb_server import KEY, WandbServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "15")
        yield running


def on_server(server: WandbServer) -> list[tuple[int, float]]:
    """(step, loss) of the rows on the server, in its order;
    its own numbers have no gap and no repetition.
    """
    rows = server.runs["abcd1234"].rows()
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    return [(int(row["step"]), float(row["loss/generator"])) for row in rows]


def arrived(server: WandbServer) -> int:
    return len(server.runs["abcd1234"].lines) if "abcd1234" in server.runs else 0


def train(
    run: RunDir,
    steps: range,
    said: list[str],
    mode: sinks.Mode = "online",
    *,
    loss: float = 100.0,
) -> None:
    """One start that goes on from a checkpoint just before `steps`."""
    cut_back(run.metrics, steps[0] - 1)
    tracker = Tracker(run, mode, said.append)
    write(tracker, steps, loss)
    tracker.close()


def write(tracker: Tracker, steps: range, loss: float = 100.0) -> None:
    for step in steps:
        seconds = time.time() % 1000
        row = {"step": step, "loss/generator": loss - step, "speed/step_seconds": seconds}
        tracker.write(row)


def expected(last: int) -> list[tuple[int, float]]:
    return [(step, 100.0 - step) for step in range(1, last + 1)]


def test_rows_arrive_once_through_a_killed_service_and_a_restart(
    new_run: RunDir, server: WandbServer
) -> None:
    said: list[str] = []
    tracker = Tracker(new_run, "online", said.append)
    write(tracker, range(1, 11))
    wait_for(lambda: arrived(server) == 10)
    write(tracker, range(11, 21))
    for pid in services(new_run):
        os.kill(pid, signal.SIGKILL)
    write(tracker, range(21, 31))
    tracker.close()
    assert on_server(server) == expected(30)
    assert len(said) == 1
    assert tracker.how_to_sync is None
    train(new_run, range(26, 41), said)
    assert on_server(server) == expected(40)
    assert len(said) == 1


def test_each_step_is_there_once_after_a_kill_a_rollback_and_a_requeue(
    new_run: RunDir, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "LEAVE_SECONDS", 400.0)
    said: list[str] = []
    tracker = Tracker(new_run, "online", said.append)
    write(tracker, range(1, 11))
    wait_for(lambda: arrived(server) == 10)
    note_rollback(new_run, 10, 5)
    tracker.cut_back(5)
    write(tracker, range(6, 9), loss=50.0)
    for pid in services(new_run):
        os.kill(pid, signal.SIGKILL)
    write(tracker, range(9, 13), loss=50.0)
    tracker.close(finished=False)
    train(new_run, range(11, 16), said, loss=50.0)  # requeued, from a checkpoint of step 10
    left = server.runs["abcd1234"]
    assert [(row["step"], row["loss/generator"]) for row in left.rows()] == expected(10)
    assert left.display_name == "r (left after step 5)"
    assert "superseded" in left.tags
    assert left.exit_code == 1
    going_on = server.runs["abcd1234-1"]
    assert [(row["step"], row["loss/generator"]) for row in going_on.rows()] == [
        (step, (100.0 if step <= 5 else 50.0) - step) for step in range(1, 16)
    ]
    assert "superseded" not in going_on.tags
    assert going_on.exit_code == 0
    assert len(said) <= 1  # of the service that was killed
    assert mirror_once(new_run, "online", 300, os.environ).sent == 0


def test_without_a_key_a_run_is_offline_until_there_is_one(
    new_run: RunDir, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    said: list[str] = []
    train(new_run, range(1, 11), said)
    assert len(said) == 1
    assert "key" in said[0]
    assert "offline from here on; the next start tries again" in said[0]
    assert points(new_run) == expected(10)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    train(new_run, range(9, 21), said)
    assert on_server(server) == expected(20)
    assert len(said) == 1
    assert all(Path(f"{file}.synced").exists() for file in files(new_run))
    for path in [*new_run.path.parents[1].rglob("*"), Path.home() / ".netrc"]:
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), (
            f"the key stands in {path}"
        )


def test_a_lost_network_costs_one_warning_and_a_bounded_end(
    new_run: RunDir, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "LEAVE_SECONDS", 4.0)
    said: list[str] = []
    tracker = Tracker(new_run, "online", said.append)
    write(tracker, range(1, 11))
    wait_for(lambda: arrived(server) == 10)
    server.refuses_history.set()
    write(tracker, range(11, 21))
    before = time.monotonic()
    tracker.close(finished=False)
    assert time.monotonic() - before < 30
    assert len(said) == 1
    assert tracker.how_to_sync == f"electra-dist wandb sync {new_run.path}"
    server.refuses_history.clear()
    assert mirror_once(new_run, "online", 300, os.environ).rows == 20
    assert on_server(server) == expected(20)
    assert mirror_once(new_run, "online", 300, os.environ).sent == 0


@pytest.mark.full
def test_offline_sessions_that_wandb_uploaded_are_not_sent_again(
    new_run: RunDir, server: WandbServer
) -> None:
    said: list[str] = []
    train(new_run, range(1, 11), said, "offline")
    train(new_run, range(11, 21), said, "offline")
    upload = [
        str(Path(sys.executable).with_name("wandb")),
        "sync",
        *(str(file.parent) for file in files(new_run)),
    ]
    subprocess.run(upload, check=True, capture_output=True, timeout=120)
    assert on_server(server) == expected(20)
    train(new_run, range(21, 31), said, "offline")
    assert mirror_once(new_run, "online", 300, os.environ).sent == 10
    assert on_server(server) == expected(30)
    subprocess.run(
        [*upload[:2], *(str(file.parent) for file in files(new_run))], check=True, timeout=120
    )
    assert on_server(server) == expected(30)


@pytest.mark.full
def test_no_network_at_the_start_is_offline_within_a_bound(
    new_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    said: list[str] = []
    train(new_run, range(1, 11), said)
    assert len(said) == 1
    assert "offline from here on" in said[0]
    assert points(new_run) == expected(10)
    with pytest.raises(MirrorError, match="W&B: "):
        mirror_once(new_run, "online", 300, os.environ)
    assert points(new_run) == expected(10)
