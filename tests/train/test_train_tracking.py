"""metrics.jsonl and W&B: rows, rollback, and one W&B run over restarts, read back from its offline files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from electra_dist.config import TrackingConfig
from electra_dist.rundir import RunDir
from electra_dist.train.tracking import MetricsFile, Tracker, cut_back


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_undefined_values_are_null_and_floats_read_back_as_fp32(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 3, "a": math.nan, "b": 0.1, "c": 1 / 3})
    file.close()
    assert rows(path) == [{"step": 3, "a": None, "b": 0.1, "c": 0.33333334}]


def test_cut_back_keeps_the_tail_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30, 40)) + '{"step": 5')
    assert cut_back(path, 20) == 3
    assert [row["step"] for row in rows(path)] == [10, 20]
    assert (tmp_path / "metrics.after-step-20.0.jsonl").read_text() == '{"step": 30}\n{"step": 40}\n{"step": 5'
    path.write_text(path.read_text() + '{"step": 25}\n')
    assert cut_back(path, 20) == 1
    assert (tmp_path / "metrics.after-step-20.1.jsonl").read_text() == '{"step": 25}\n'
    assert cut_back(path, 20) == 0


def test_rundir_reads_whole_rows_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in run.read_metrics()] == [1, 2]


@pytest.fixture(scope="module")
def offline_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two starts of one run, the second one rolled back by a step."""
    run = RunDir(tmp_path_factory.mktemp("run"))
    for steps in ((1, 2, 3), (3, 4)):
        tracker = Tracker(run, TrackingConfig(wandb="offline"), "abcd1234", {"optim": {"lr": 0.1}})
        for step in steps:
            tracker.write({"step": step, "loss/generator": 7.0 - step, "discriminator/auc": math.nan})
        tracker.close()
        assert tracker.how_to_sync is not None
        assert str(run.path) in tracker.how_to_sync
    return sorted((run.path / "wandb").glob("offline-run-*/*.wandb"))


def records(path: Path) -> list[Any]:
    """The records of a .wandb file: a LevelDB-style log of 32 KiB blocks after a 7-byte header."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, found, part, at = path.read_bytes(), [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + length]
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
        at += 7 + length
    return found


def test_restarts_are_one_wandb_run_with_our_step(offline_files: list[Path]) -> None:
    assert len(offline_files) == 2
    ids, points = set(), []
    for path in offline_files:
        for record in records(path):
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                points.append((int(items["step"]), float(items["loss/generator"])))
                assert "discriminator/auc" not in items
    assert ids == {"abcd1234"}
    assert points == [(1, 6.0), (2, 5.0), (3, 4.0), (3, 4.0), (4, 3.0)]
