"""TensorBoard mirrors `metrics.jsonl`: event files in `RUN/tensorboard`, one scalar per metric.

Comes in: the run directory, and each row after it stands in `metrics.jsonl`. Goes out: event files
that hold exactly the rows of `metrics.jsonl`. At a start and after a rollback they are made anew
from it, so that no step is there twice and none of an abandoned future. Needs the package
`tensorboard`. What goes wrong here is a warning, never an end of training: the next start makes up
for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import STEP, Metrics
from electra_dist.runs.metrics_log import is_event


class TensorBoard:
    """The sink `tensorboard` of `tracking.sinks`."""

    def __init__(self, run: RunDir, warn: Callable[[str], None]) -> None:
        """Write what the metrics hold already; raises `UserError` without the package."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "tracking.sinks has tensorboard, and its package is missing: pip install"
                " 'electra-dist[tensorboard]', or leave it out"
            ) from error
        self._open: Callable[..., Any] = SummaryWriter
        self._run = run
        self._warn = warn
        self._writer: Any = None
        self._begin()

    def write(self, row: Metrics) -> None:
        """One row, which stands in metrics.jsonl; one of an event has no numbers."""
        self._try(lambda: self._add(row))

    def cut_back(self) -> None:
        """Rows were taken off the end of metrics.jsonl: begin anew with those that are left."""
        self._begin()

    def close(self, *, failed: bool = False, finished: bool = True) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._try(self._writer.close)

    def _begin(self) -> None:
        self.close()
        self._try(self._replay)

    def _replay(self) -> None:
        folder = self._run.tensorboard
        if folder.is_dir():
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        self._writer = self._open(str(folder))
        for row in self._run.read_metrics():
            if not is_event(row):
                self._add(row)

    def _add(self, row: Metrics) -> None:
        if self._writer is None or "event" in row:
            return
        step = int(row[STEP.name])
        for name, value in row.items():
            is_defined = value is not None and math.isfinite(value)
            if name != STEP.name and is_defined:
                self._writer.add_scalar(name, value, step)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # of the file system, of TensorBoard's own threads
            self._warn(
                f"{self._run.tensorboard}: cannot be written ({error}); TensorBoard follows"
                f" {self._run.metrics} again at the next start"
            )
            self._writer = None
