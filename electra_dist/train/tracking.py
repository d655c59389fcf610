"""Where metrics go: `metrics.jsonl` is the truth, W&B mirrors it (DESIGN D7). Rank 0 only.

A resume cuts `metrics.jsonl` back to the step of the checkpoint and keeps the tail in a file beside it. The id of the
W&B run is kept in run.json, so any number of restarts is one W&B run; the curve is drawn over our own `step`, because
W&B drops a value whose own step counter goes backwards.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.config import TrackingConfig
from electra_dist.errors import UserError
from electra_dist.files import write_atomically
from electra_dist.rundir import RunDir

Metrics = dict[str, float | int]


def _as_json(value: float | int) -> float | int | None:
    """JSON has no NaN: what is undefined is null. Floats keep fp32 precision (shortest form that reads back)."""
    if isinstance(value, float):
        return float(str(np.float32(value))) if math.isfinite(value) else None
    return value


class MetricsFile:
    """Appends one JSON object a logged step and flushes it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: Metrics) -> None:
        row = {name: _as_json(value) for name, value in metrics.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def cut_back(path: Path, step: int) -> int:
    """Keep the rows of `path` up to `step`; later and broken ones go to `NAME.after-step-STEP.N.jsonl` beside it.

    Returns the number of rows moved. The metrics file is replaced atomically, after the tail is written.
    """
    if not path.is_file():
        return 0
    kept: list[str] = []
    tail: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        (kept if line.endswith("\n") and json.loads(line)["step"] <= step else tail).append(line)
    if tail:
        number = len(list(path.parent.glob(f"{path.stem}.after-step-{step}.*.jsonl")))
        write_atomically(path.with_name(f"{path.stem}.after-step-{step}.{number}.jsonl"), "".join(tail))
        write_atomically(path, "".join(kept))
    return len(tail)


class Wandb:
    """A W&B run that any number of restarts continue."""

    def __init__(self, run: RunDir, tracking: TrackingConfig, run_id: str, facts: dict[str, Any]) -> None:
        """Open or continue run `run_id`; raises `UserError` when W&B is asked to be online and cannot be."""
        import wandb

        self._mode = tracking.wandb
        self._folder = run.path / "wandb"
        try:
            self._run = wandb.init(
                id=run_id,
                resume="allow",
                mode=tracking.wandb,
                project=tracking.project,
                entity=tracking.entity,
                name=run.path.name,
                tags=list(tracking.tags),
                dir=str(run.path),
                config=facts,
                settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
            )
        except (wandb.Error, OSError) as error:
            raise UserError(
                f"tracking.wandb = {tracking.wandb}: W&B could not start: {error}. Log in with `wandb login`, or set"
                " tracking.wandb=offline and sync later"
            ) from error
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, metrics: Metrics) -> None:
        self._run.log({name: value for name, value in metrics.items() if math.isfinite(value)})

    def close(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=1 if failed else 0)

    @property
    def how_to_sync(self) -> str | None:
        """The command that uploads an offline run, or None when there is nothing to upload."""
        return f"wandb sync {self._folder}/offline-run-*" if self._mode == "offline" else None


class Tracker:
    """The metrics file and, unless disabled, W&B."""

    def __init__(self, run: RunDir, tracking: TrackingConfig, run_id: str, facts: dict[str, Any]) -> None:
        self._file = MetricsFile(run.metrics)
        self._wandb = None if tracking.wandb == "disabled" else Wandb(run, tracking, run_id, facts)

    def write(self, metrics: Metrics) -> None:
        self._file.write(metrics)
        if self._wandb:
            self._wandb.write(metrics)

    def close(self, *, failed: bool = False) -> None:
        self._file.close()
        if self._wandb:
            self._wandb.close(failed=failed)

    @property
    def how_to_sync(self) -> str | None:
        return self._wandb.how_to_sync if self._wandb else None
