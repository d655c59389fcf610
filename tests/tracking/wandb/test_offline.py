"""W&B is a bystander: every row of metrics.jsonl is in its files once,
whatever becomes of its service.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import pytest

from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import RowReader, cut_back
from electra_dist.tracking import sinks
from electra_dist.tracking.sinks import Tracker
from electra_dist.tracking.wandb import MirrorError, mirror_once
from tests.support.disks import mount, tiny_disk
from tests.support.offline import (
    exits,
    files,
    opened,
    parent,
    points,
    records,
    services,
    wait_for,
)
from tests.support.wandb_runs import note_rollback


def row(step: int, loss: float | None = None) -> dict[str, float | int]:
    return {
        "step": step,
        "loss/generator": 7.0 - step if loss is None else loss,
        "discriminator/auc": math.nan,
        "speed/step_seconds": time.time() % 1000,
    }


def start(run: RunDir, said: list[str]) -> Tracker:
    return Tracker(run, "offline", said.append)


def mirrored(run: RunDir) -> list[int]:
    """Steps of the rows that were handed over."""
    return [line["step"] for line in RowReader(run.mirrored) if "key" in line]


def test_restarts_are_one_wandb_run_and_no_row_is_there_twice(new_run: RunDir) -> None:
    said: list[str] = []
    for steps in ((1, 2, 3), (3, 4)):  # the second start goes on from a checkpoint of step 2
        cut_back(new_run.metrics, steps[0] - 1)
        tracker = start(new_run, said)
        for step in steps:
            tracker.write(row(step))
        tracker.close()
        assert tracker.how_to_sync == f"electra-dist wandb sync {new_run.path}"
    assert said == []
    found = [record for path in files(new_run) for record in records(path)]
    assert {record.run.run_id for record in found if record.HasField("run")} == {"abcd1234"}
    assert "a-tag" in {tag for record in found if record.HasField("run") for tag in record.run.tags}
    assert points(new_run) == [(1, 6.0), (2, 5.0), (3, 4.0), (4, 3.0)]


def test_steps_that_a_rollback_trains_otherwise_are_a_wandb_run_of_their_own(
    new_run: RunDir,
) -> None:
    said: list[str] = []
    tracker = start(new_run, said)
    for step, loss in ((1, 6.0), (2, 5.0), (3, 99.0)):
        tracker.write(row(step, loss))
    wait_for(lambda: mirrored(new_run) == [1, 2, 3])
    note_rollback(new_run, 3, 1)
    assert tracker.cut_back(1).later == 2
    for step, loss in ((2, 5.0), (3, 4.0), (4, 3.0)):
        tracker.write(row(step, loss))
    tracker.close()
    assert said == []
    assert points(new_run, "abcd1234") == [(1, 6.0), (2, 5.0), (3, 99.0)]
    assert points(new_run, "abcd1234-1") == [(1, 6.0), (2, 5.0), (3, 4.0), (4, 3.0)]
    left = opened(new_run, "abcd1234")[-1]
    assert left.display_name == "r (left after step 2)"
    assert sorted(left.tags) == ["a-tag", "superseded"]
    going_on = opened(new_run, "abcd1234-1")[-1]
    assert going_on.display_name == "r"
    assert list(going_on.tags) == ["a-tag"]
    assert exits(new_run, "abcd1234") == [1]
    assert exits(new_run, "abcd1234-1") == [0]
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 0


def test_steps_that_a_restart_repeats_with_another_rounding_are_there_once(
    new_run: RunDir,
) -> None:
    said: list[str] = []
    for steps, rounding in (((1, 2, 3), 0.0), ((3, 4), 1e-6)):
        cut_back(new_run.metrics, steps[0] - 1)
        tracker = start(new_run, said)
        for step in steps:
            tracker.write(row(step, 7.0 - step + rounding))
        tracker.close()
    assert [step for step, _ in points(new_run)] == [1, 2, 3, 4]
    assert points(new_run)[2] == (3, 4.0)
    assert said == []


def test_a_rollback_that_is_noted_and_not_done_yet_changes_nothing(new_run: RunDir) -> None:
    for step in (1, 2, 3):
        with new_run.metrics.open("a") as file:
            file.write(json.dumps({"step": step, "loss/generator": 7.0 - step}) + "\n")
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 3
    note_rollback(new_run, 3, 1)  # killed before the metrics are cut
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 0
    assert not files(new_run, "abcd1234-1")
    cut_back(new_run.metrics, 1)
    with new_run.metrics.open("a") as file:
        file.write(json.dumps({"step": 2, "loss/generator": 1.0}) + "\n")
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 2
    assert points(new_run, "abcd1234-1") == [(1, 6.0), (2, 1.0)]


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.full)]
)
def test_a_service_that_dies_costs_one_warning_and_no_row(
    new_run: RunDir, number: signal.Signals
) -> None:
    said: list[str] = []
    tracker = start(new_run, said)
    for step in range(1, 41):
        tracker.write(row(step))
        if step in (10, 20):
            wait_for(lambda: services(new_run))
            for pid in services(new_run):
                os.kill(pid, number)
        time.sleep(0.02)
    tracker.close()
    assert sorted(points(new_run)) == [(step, 7.0 - step) for step in range(1, 41)]
    assert len(said) == 1
    assert said[0].startswith("W&B: ")
    assert not services(new_run)


def test_a_service_that_hangs_delays_the_end_by_a_bounded_time(
    new_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "LEAVE_SECONDS", 3.0)
    said: list[str] = []
    tracker = start(new_run, said)
    tracker.write(row(1))
    wait_for(lambda: services(new_run))
    for pid in services(new_run):
        os.kill(pid, signal.SIGSTOP)
    tracker.write(row(2))
    before = time.monotonic()
    tracker.close(finished=False)
    assert time.monotonic() - before < 20
    assert len(said) == 1
    assert "3 s" in said[0]
    assert tracker.how_to_sync
    wait_for(lambda: not services(new_run))
    report = mirror_once(new_run, "offline", 300, os.environ)
    assert report.rows == 2
    assert points(new_run) == [(1, 6.0), (2, 5.0)]


def test_a_mirror_that_is_killed_leaves_no_process_and_no_row_out(new_run: RunDir) -> None:
    said: list[str] = []
    tracker = start(new_run, said)
    tracker.write(row(1))
    wait_for(lambda: services(new_run))
    (service,) = services(new_run)
    mirror = parent(service)
    assert mirror
    os.kill(mirror, signal.SIGKILL)
    tracker.write(row(2))
    tracker.close()
    assert points(new_run) == [(1, 6.0), (2, 5.0)]
    assert len(said) == 1
    wait_for(lambda: not services(new_run))


def test_signals_for_the_ranks_a_stale_service_and_a_foreign_run_id_do_nothing(
    new_run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere")
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    said: list[str] = []
    tracker = start(new_run, said)
    wait_for(lambda: services(new_run))
    (service,) = services(new_run)
    mirror = parent(service)
    assert mirror
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(mirror, number)
    assert os.getsid(mirror) == mirror
    with pytest.raises(MirrorError, match="another process mirrors this run"):
        mirror_once(new_run, "offline", 300, os.environ)
    tracker.write(row(1))
    tracker.close()
    assert points(new_run) == [(1, 6.0)]
    assert said == []


@pytest.mark.full
def test_a_full_disk_under_its_files_costs_one_warning(new_run: RunDir) -> None:
    with tiny_disk(new_run.wandb, "64k"):
        said: list[str] = []
        tracker = start(new_run, said)
        for step in range(1, 301):
            tracker.write(row(step) | {f"a/value/{number}": number / 7 for number in range(20)})
            time.sleep(0.01)
        tracker.close()
        assert len(said) == 1
        assert [r["step"] for r in new_run.read_metrics()] == list(range(1, 301))
        mount(new_run.wandb, "remount,size=64m")
        mirror_once(new_run, "offline", 300, os.environ)
        assert sorted(step for step, _ in points(new_run)) == list(range(1, 301))


def test_a_folder_that_cannot_be_made_costs_one_warning(new_run: RunDir) -> None:
    new_run.wandb.write_text("in the way of the folder")
    said: list[str] = []
    tracker = start(new_run, said)
    tracker.write(row(1))
    tracker.close()
    assert len(said) == 1
    assert [r["step"] for r in new_run.read_metrics()] == [1]
    new_run.wandb.unlink()
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 1
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 0
    assert points(new_run) == [(1, 6.0)]
