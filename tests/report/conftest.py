"""A sweep of three runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from electra_dist.runs.directory import RunDir
from tests.support.small_runs import rows_of, training_row, write_passages, write_run

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three learning rates. The second was restarted, rolled back, has findings and
    passages; the third has a name that would do harm.
    """
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    write_run(folder / "a", rows_of(100, 2))
    parts = {"speed/data_wait_seconds": 0.1, "speed/generator_forward_seconds": 0.2}
    begins = {
        "event": "health",
        "step": 40,
        "rule": "data-stall",
        "severity": "warning",
        "sentence": "A fifth of a step is spent waiting for data.",
        "advice": "Raise data.workers.",
        "state": "begins",
    }
    start = {"world_size": 2, "time": "2030-01-01T00:00:00Z", "host": "h"}
    rollback = {
        "time": "2030-01-01T01:00:00Z",
        "from_step": 30,
        "to_step": 20,
        "rows": [18, 31],
        "reason": "the loss </script> jumped",
        "settings": "x",
    }
    second = write_run(
        folder / "b",
        [*rows_of(100, 2, **parts), begins],
        {"optim": {"warmup_steps": 0, "lr": 0.002}},
        {"starts": [start, start | {"step": 60}], "rollbacks": [rollback]},
    )
    write_passages(second, 100, "<b>snow</b>")
    clocked = [
        training_row(step, **{"speed/wall_clock": 10**9 + step}) for step in range(2, 101, 2)
    ]
    write_run(folder / HOSTILE, clocked, {"optim": {"warmup_steps": 0, "lr": 0.004}})
    return folder


@pytest.fixture
def one_run(tmp_path: Path) -> RunDir:
    """A run of 100 steps that nothing is wrong with."""
    return write_run(tmp_path / "one", rows_of(100, 2))
