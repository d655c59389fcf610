"""The torture: a short one loses nothing, and what is lost, doubled or different would be seen."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"step": step, "loss/generator": 7.0 - step, "speed/mfu": 0.1 * step} for step in (1, 2, 3)]


@pytest.fixture(autouse=True)
def benchmarks(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(repo_root / "benchmarks")


@pytest.mark.full
def test_a_short_torture_loses_nothing(repo_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "torture.json"
    words = [
        sys.executable,
        "benchmarks/torture.py",
        "--short",
        "--folder",
        str(tmp_path / "work"),
        "--json",
        str(file),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words,
        cwd=repo_root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert [row["fault"] for row in found["table"] if row["survived"] != row["tries"]] == []
    possible = 10 if "full disks were left out" not in done.stdout else 9
    assert sum(row["tries"] for row in found["table"]) == possible


def subject(folder: Path, rows: list[dict[str, Any]]) -> Any:
    from torture_subject import Subject

    made = Subject(folder, folder / "shards", 2, 3)
    made.run.path.mkdir(parents=True)
    made.run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made.weights = dict  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize(
    ("rows", "difference"),
    [
        (ROWS, None),
        ([row | {"speed/mfu": 9} for row in ROWS], None),
        (ROWS[:1] + ROWS[2:], "step 2 is missing"),
        (ROWS + ROWS[2:], "step 3 is there 2 times"),
        ([*ROWS, ROWS[0] | {"step": 4}], "step 4 should not be there"),
        (
            [*ROWS, {"step": 3, "validation/loss": 1.0}],
            "the validation of step 3 should not be there",
        ),
        (
            [ROWS[0] | {"loss/generator": 6.0000001}, *ROWS[1:]],
            "step 1 has other values: loss/generator 6.0000001 instead",
        ),
    ],
)
def test_a_step_that_is_lost_doubled_or_different_is_seen(
    tmp_path: Path, rows: list[dict[str, Any]], difference: str | None
) -> None:
    found = subject(tmp_path / "struck", rows).differences(subject(tmp_path / "whole", ROWS))
    assert len(found) == (difference is not None)
    assert all(one.startswith(str(difference)) for one in found)


def test_weights_that_differ_are_seen(tmp_path: Path) -> None:
    import torch

    struck, whole = subject(tmp_path / "struck", ROWS), subject(tmp_path / "whole", ROWS)
    struck.weights, whole.weights = (
        lambda: {"g": torch.ones(2)},
        lambda: {"g": torch.tensor([1.0, 1.0000001])},
    )
    assert struck.differences(whole) == ["g differs at the last step"]


def test_a_long_torture_draws_every_kind_about_as_often() -> None:
    import torture

    runs = torture.plan(100, random.Random(1))
    counts = Counter(kind for run in runs for kind in run)
    assert set(counts) == {*torture.LIVE, *torture.QUIET, torture.DIVERGENCE}
    assert sum(counts.values()) == 100
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_table_counts_what_was_lost_and_what_ended_wrongly() -> None:
    import torture

    faults = [
        torture.Fault("hang", 0, recovery=2.0),
        torture.Fault("hang", 1, recovery=4.0, wrong="exit status 1 instead of 69"),
        torture.Fault("hang", 2, differences=["step 2 is missing"]),
    ]
    (row,) = torture.table(faults)
    assert row == {
        "fault": "hang",
        "tries": 3,
        "survived": 1,
        "lost": 1,
        "wrong_status": 1,
        "median_recovery_seconds": 3.0,
    }
