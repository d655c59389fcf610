"""metrics.jsonl as training writes it:
rows, rollbacks, and a file system that takes none for a while.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import StorageError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import cut_back
from electra_dist.tracking.sinks import MetricsFile, Tracker
from tests.support.disks import tiny_disk


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_undefined_values_are_null_and_floats_read_back_as_fp32(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, print)
    file.write({"step": 3, "a": math.nan, "b": 0.1, "c": 1 / 3})
    file.close()
    assert rows(path) == [{"step": 3, "a": None, "b": 0.1, "c": 0.33333334}]


def test_cut_back_keeps_the_tail_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30, 40)) + '{"step": 5'
    )
    assert cut_back(path, 20) == (3, 0)
    assert [row["step"] for row in rows(path)] == [10, 20]
    assert (
        tmp_path / "metrics.after-step-20.0.jsonl"
    ).read_text() == '{"step": 30}\n{"step": 40}\n{"step": 5'
    path.write_text(path.read_text() + '{"step": 25}\n')
    assert cut_back(path, 20) == (1, 0)
    assert (tmp_path / "metrics.after-step-20.1.jsonl").read_text() == '{"step": 25}\n'
    assert cut_back(path, 20) == (0, 0)


def test_rundir_reads_whole_rows_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in run.read_metrics()] == [1, 2]


def test_a_rollback_goes_on_in_the_same_file(tmp_path: Path) -> None:
    tracker = Tracker(RunDir(tmp_path), "disabled", print)
    for step in (1, 2, 3):
        tracker.write({"step": step})
    assert tracker.cut_back(1) == (2, 0)
    tracker.write({"step": 2, "again": 1})
    tracker.sync()
    tracker.close()
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2, "again": 1}]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with tiny_disk(tmp_path / "disk", "64k") as place:
        yield place


def test_rows_wait_in_memory_while_the_disk_is_full_and_none_is_missing(small_disk: Path) -> None:
    said: list[str] = []
    path = small_disk / "metrics.jsonl"
    file = MetricsFile(path, said.append)
    file.write({"step": 0})
    (small_disk / "ballast").write_bytes(b"x" * (56 << 10))
    for step in range(1, 600):
        file.write({"step": step, "a value of some length": 0.123456789})
        file.sync()
        assert path.read_bytes().endswith(b"\n"), "half a row"
    assert [row["step"] for row in rows(path)] == list(range(len(rows(path))))
    assert len(rows(path)) < 600
    assert len(said) == 1
    assert "no space left" in said[0]
    (small_disk / "ballast").unlink()
    file.write({"step": 600})
    assert [row["step"] for row in rows(path)] == list(range(601))
    assert len(said) == 2
    file.close()


def test_rows_that_are_lost_in_the_end_are_an_error(small_disk: Path) -> None:
    file = MetricsFile(small_disk / "metrics.jsonl", lambda _: None)
    (small_disk / "ballast").write_bytes(b"x" * (60 << 10))
    for step in range(100):
        file.write({"step": step, "a value of some length": 0.123456789})
    with pytest.raises(StorageError, match="rows cannot be written: no space left"):
        file.close()
