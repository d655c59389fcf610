"""metrics.jsonl after a crash of the node, a full disk, or somebody's editor:
what is no row is never in the way.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from electra_dist.report import read_report
from electra_dist.runs import metrics_log
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import RowReader, cut_back
from launcher.status import status

WHOLE = {step: b'{"step": %d, "a": 1}\n' % step for step in (1, 2, 3, 4, 5)}
BROKEN = {
    "zeros instead of a row": b"\0" * 5000 + b"\n",
    "a row cut short": b'{"step": 3, "a\n',
    "no UTF-8": b'{"step": 3, "a": "\xff\xfe"}\n',
    "no JSON": b"step 3\n",
    "no object": b"[3]\n",
    "a number": b"3\n",
    "no step": b'{"a": 1}\n',
    "a step that is no number": b'{"step": "3"}\n',
    "a step that is none": b'{"step": true}\n',
    "a negative step": b'{"step": -3}\n',
    "too deep": b'{"step": 3, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "too long": b'{"step": 3, "a": "' + b"x" * (3 << 20) + b'"}\n',
}


def steps(path: Path) -> list[int]:
    return [row["step"] for row in RowReader(path)]


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_what_is_no_row_is_passed_over_counted_and_set_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE[1] + WHOLE[2] + damage + WHOLE[4] + WHOLE[5])
    reader = RowReader(path)
    assert [row["step"] for row in reader] == [1, 2, 4, 5]
    assert reader.broken == 1
    assert cut_back(path, 4) == (1, 1)
    assert path.read_bytes() == WHOLE[1] + WHOLE[2] + WHOLE[4]
    assert (tmp_path / "metrics.after-step-4.0.jsonl").read_bytes() == WHOLE[5]
    kept = (tmp_path / "metrics.broken.0.jsonl").read_bytes()
    assert 0 < len(kept) <= metrics_log.ROW_BYTES + 1
    assert damage[:10].startswith(kept[:1])
    assert cut_back(path, 4) == (0, 0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "metrics.after-step-4.0.jsonl",
        "metrics.broken.0.jsonl",
        "metrics.jsonl",
    ]


def test_a_row_behind_a_block_of_zeros_is_not_lost_with_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE[1] + b'{"step": 2' + b"\0" * 3000 + WHOLE[3] + WHOLE[4] + b"\0" * 4096)
    assert steps(path) == [1, 3, 4]
    assert cut_back(path, 9) == (0, 3)
    assert path.read_bytes() == WHOLE[1] + WHOLE[3] + WHOLE[4]


def test_a_huge_hole_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.write(WHOLE[1])
        file.seek(1 << 29)
        file.write(b"\n" + WHOLE[2])
    before = time.monotonic()
    assert steps(path) == [1, 2]
    assert time.monotonic() - before < 60


def test_numbers_of_files_beside_it_are_never_used_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    (tmp_path / "metrics.after-step-1.7.jsonl").write_text("kept")
    path.write_bytes(WHOLE[1] + WHOLE[2])
    assert cut_back(path, 1).later == 1
    assert (tmp_path / "metrics.after-step-1.8.jsonl").read_bytes() == WHOLE[2]


def test_a_fifo_in_its_place_is_no_metrics(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    assert steps(tmp_path / "metrics.jsonl") == []


def test_report_and_status_pass_over_broken_rows(run: RunDir) -> None:
    row = {
        "step": 30,
        "loss/generator": 6.0,
        "loss/discriminator": 0.4,
        "speed/step_seconds": 2.0,
        "speed/real_tokens_per_s": 10.0,
        "data/real_tokens": 5,
        "data/epoch": 0.1,
    }
    run.metrics.write_bytes(b"\0" * 4096 + json.dumps(row).encode() + b"\nnonsense\n")
    report = read_report(run)
    assert report.step == 30
    assert report.broken_rows == 2
    assert any("broken" in name for name, _, _ in report.rows())
    assert status(run).step == 30
    assert status(run).broken_rows == 2
