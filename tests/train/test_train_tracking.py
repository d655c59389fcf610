"""metrics.jsonl: rows, rollback, and a file that cannot be written or was damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from electra_dist.metrics_log import cut_back
from electra_dist.rundir import RunDir
from electra_dist.train.tracking import MetricsFile


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
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30, 40)) + '{"step": 5')
    assert cut_back(path, 20) == (3, 0)
    assert [row["step"] for row in rows(path)] == [10, 20]
    assert (tmp_path / "metrics.after-step-20.0.jsonl").read_text() == '{"step": 30}\n{"step": 40}\n{"step": 5'
    path.write_text(path.read_text() + '{"step": 25}\n')
    assert cut_back(path, 20) == (1, 0)
    assert (tmp_path / "metrics.after-step-20.1.jsonl").read_text() == '{"step": 25}\n'
    assert cut_back(path, 20) == (0, 0)


def test_rundir_reads_whole_rows_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in run.read_metrics()] == [1, 2]
