"""TensorBoard holds exactly the rows of metrics.jsonl, after resumes and rollbacks too.

Its event files are read back by TensorBoard's own reader.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from electra_dist.config import Sink
from electra_dist.health import Finding
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import cut_back
from electra_dist.tracking.sinks import Tracker, open_sinks


def row(step: int) -> dict[str, float | int]:
    return {"step": step, "loss/generator": 10.0 - step, "discriminator/auc": float("nan")}


def shown(run: RunDir, name: str = "loss/generator") -> list[tuple[int, float]]:
    reader = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0})
    reader.Reload()
    if name not in reader.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in reader.Scalars(name)]


def recorded(run: RunDir) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [(found["step"], found["loss/generator"]) for found in rows]


def start(run: RunDir, said: list[str]) -> Tracker:
    return Tracker(run, "disabled", said.append, ("wandb", "tensorboard"))


def test_each_step_is_there_once_after_a_resume_and_after_a_rollback(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    said: list[str] = []
    tracker = start(run, said)
    for step in range(1, 6):
        tracker.write(row(step))
    tracker.close(finished=False)
    assert shown(run) == recorded(run) == [(step, 10.0 - step) for step in range(1, 6)]

    cut_back(run.metrics, 3)  # a resume from step 3
    tracker = start(run, said)
    for step in range(4, 8):
        tracker.write(row(step))
    tracker.cut_back(5)  # a rollback
    tracker.write(row(6))
    tracker.close()
    assert shown(run) == recorded(run) == [(step, 10.0 - step) for step in range(1, 7)]
    assert said == []


def test_what_is_undefined_is_left_out(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    tracker = start(run, [])
    tracker.write(row(1))
    tracker.close()
    assert shown(run, "discriminator/auc") == []
    tracker = start(run, [])  # from the null of the file
    tracker.close()
    assert shown(run, "discriminator/auc") == []
    assert shown(run) == [(1, 9.0)]


def test_rows_of_events_are_passed_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    said: list[str] = []
    finding = Finding("falling", "warning", 1, "slower than before", "look at the nodes")
    run.metrics.write_text(json.dumps(finding.to_row()) + "\n")
    tracker = start(run, said)
    tracker.write(row(1))
    tracker.write(finding.to_row())
    tracker.write(row(2))
    tracker.close()
    assert shown(run) == [(1, 9.0), (2, 8.0)]
    assert said == []


def test_a_folder_that_cannot_be_written_is_a_warning_and_the_record_is_whole(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path)
    run.tensorboard.write_text("a file is in the way")
    said: list[str] = []
    tracker = start(run, said)
    tracker.write(row(1))
    tracker.close()
    assert len(said) == 1
    assert "TensorBoard follows" in said[0]
    assert recorded(run) == [(1, 9.0)]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.tensorboard.mkdir()
    (run.tensorboard / "notes.txt").write_text("mine")
    start(run, []).close()
    assert (run.tensorboard / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("sinks", [(), ("wandb",)])
def test_without_it_there_is_no_folder(tmp_path: Path, sinks: tuple[str, ...]) -> None:
    run = RunDir(tmp_path)
    tracker = Tracker(run, "disabled", print, sinks)  # type: ignore[arg-type]
    tracker.write(row(1))
    tracker.close()
    assert not run.tensorboard.exists()


def test_every_sink_that_can_be_asked_for_opens(tmp_path: Path) -> None:
    opened = open_sinks(get_args(Sink), RunDir(tmp_path), "disabled", print)
    assert len(opened) == len(get_args(Sink)) - 1  # W&B is disabled
    for sink in opened:
        sink.close(failed=False, finished=True)
