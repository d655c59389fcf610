"""Where metrics go: `metrics.jsonl` is the record and alone is needed; sinks mirror it (DESIGN D7,
D12). Rank 0 only.

A resume and a rollback cut `metrics.jsonl` back to the step that they go on from; the tail is kept
in a file beside it. W&B is a process of its own that reads the file
(`electra_dist.tracking.wandb`): nothing here waits for it, but for a bounded time at the end.
A new sink is a module here, a line in `open_sinks`, and its name in `tracking.sinks`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from electra_dist.config import Sink as SinkName
from electra_dist.errors import EXIT_CRASH, EXIT_OK, EXIT_UNFINISHED, StorageError
from electra_dist.files.writing import advice, reason, writing
from electra_dist.health import Finding, Monitor
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import Metrics
from electra_dist.runs.metrics_log import Cut, Row, cut_back
from electra_dist.tracking.judging import Judging
from electra_dist.tracking.tensorboard import TensorBoard
from electra_dist.tracking.wandb import Keeper, Mode

#: What W&B may take at the end of a run, and when somebody waits for
#: the process to end (a scheduler, a user).
FINISH_SECONDS = 60.0
LEAVE_SECONDS = 10.0


def _as_json(value: Any) -> Any:
    """JSON has no NaN: what is undefined is null.
    Floats keep fp32 precision (shortest form that reads back).
    """
    if isinstance(value, float):
        if math.isfinite(value):
            return float(str(np.float32(value)))
        return None
    return value


def as_row(content: Mapping[str, Any]) -> Row:
    """The row that is written, which is what its reader gets."""
    return {name: _as_json(value) for name, value in content.items()}


class MetricsFile:
    """Appends one JSON object a row. Training goes on where one cannot be written: it waits in
    memory for its time.

    A row is handed to the kernel at once, and forced to the disk by `sync`, which a checkpoint
    calls before it is whole: what a crash of the node takes of the file is trained again. `warn` is
    told once when writing begins to fail, and once when the rows that waited are written.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """Open, or make, the file, whose last line has its end (`cut_back`);
        raises `StorageError`.
        """
        self.path = path
        self._warn = warn
        self._waiting: list[bytes] = []
        self._failing = False
        self._open()

    def _open(self) -> None:
        with writing(self.path, "the metrics"):
            self._descriptor = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666
            )
            self._size = os.fstat(self._descriptor).st_size

    def write(self, content: Mapping[str, Any]) -> None:
        """One more row."""
        row = as_row(content)
        self._waiting.append(json.dumps(row).encode() + b"\n")
        self._try(self._flush)

    def sync(self) -> None:
        """Force the rows to the disk."""
        self._try(self._flush_to_disk)

    def cut_back(self, step: int) -> Cut:
        """Keep the rows up to `step`; see `metrics_log.cut_back`."""
        self.close()
        cut = cut_back(self.path, step)
        self._open()
        return cut

    def close(self) -> None:
        """Write what waits and close; raises `StorageError` where rows are lost by it."""
        try:
            self._flush_to_disk()
        except OSError as error:
            if self._waiting:
                raise StorageError(
                    f"{self.path}: the last {len(self._waiting)} rows cannot be written:"
                    f" {reason(error)}{advice(error)}"
                ) from error
        finally:
            os.close(self._descriptor)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            if not self._failing:
                self._warn(
                    f"{self.path}: cannot be written now: {reason(error)}. Training goes on; the"
                    " rows wait in memory until it can be"
                )
            self._failing = True
            return
        if self._failing:
            self._warn(f"{self.path}: can be written again; no row is missing")
            self._failing = False

    def _flush_to_disk(self) -> None:
        self._flush()
        os.fsync(self._descriptor)

    def _flush(self) -> None:
        """Append all rows that wait, or none:
        what a failure leaves of them is cut off before the next try.
        """
        if not self._waiting:
            return
        if os.fstat(self._descriptor).st_size != self._size:
            os.ftruncate(self._descriptor, self._size)
        content = b"".join(self._waiting)
        try:
            _write_all(self._descriptor, content)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(content)
        self._waiting.clear()


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


class Sink(Protocol):
    """What mirrors metrics.jsonl; a sink that fails warns, and never ends training."""

    def write(self, row: Metrics) -> None:
        """One row, which stands in metrics.jsonl already."""

    def cut_back(self) -> None:
        """Rows were taken off the end of metrics.jsonl."""

    def close(self, *, failed: bool, finished: bool) -> None:
        """The run ends; `failed` by an error, `finished` with its last step."""


class WandbSink:
    """W&B, fed from metrics.jsonl by a process of its own: nothing is to do for a row."""

    def __init__(
        self,
        run: RunDir,
        mode: Mode,
        warn: Callable[[str], None],
        environment: Mapping[str, str],
    ) -> None:
        self._mirror = Keeper(run, mode, warn, environment)

    def write(self, row: Metrics) -> None:
        """The mirror reads the file."""

    def cut_back(self) -> None:
        """The mirror sees it."""

    def close(self, *, failed: bool, finished: bool) -> None:
        """W&B has `FINISH_SECONDS` for a run that is finished, else `LEAVE_SECONDS`."""
        if failed:
            self._mirror.close(EXIT_CRASH, LEAVE_SECONDS)
        elif finished:
            self._mirror.close(EXIT_OK, FINISH_SECONDS)
        else:
            self._mirror.close(EXIT_UNFINISHED, LEAVE_SECONDS)

    @property
    def is_behind(self) -> bool:
        """Whether its server has not all rows."""
        return self._mirror.behind or self._mirror.is_offline


def open_sinks(
    names: Sequence[SinkName],
    run: RunDir,
    mode: Mode,
    warn: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
) -> list[Sink]:
    """The sinks of `tracking.sinks`; `mode` and `environment` are for W&B.

    Raises `UserError` where a package is missing.
    """
    openers: dict[SinkName, Callable[[], Sink]] = {
        "wandb": lambda: WandbSink(run, mode, warn, environment),
        "tensorboard": lambda: TensorBoard(run, warn),
    }
    return [openers[name]() for name in names if name != "wandb" or mode != "disabled"]


class Tracker:
    """The metrics file, the sinks that mirror it, and the rules of health that hear its rows."""

    def __init__(
        self,
        run: RunDir,
        mode: Mode,
        warn: Callable[[str], None],
        sinks: Sequence[SinkName] = ("wandb",),
        environment: Mapping[str, str] = os.environ,
        monitor: Callable[[], Monitor] | None = None,
    ) -> None:
        """Open the metrics file, cut back before, and the sinks; raises `StorageError`.

        `monitor` makes one that has heard nothing yet; without it no row is judged.
        """
        self._run = run
        self._file = MetricsFile(run.metrics, warn)
        self._judging = Judging(run, monitor, warn)
        self._note(self._judging.begin())
        self._sinks = open_sinks(sinks, run, mode, warn, environment)

    def write(self, metrics: Metrics) -> tuple[Finding, ...]:
        """One row, in the file when this returns; the sinks have it seconds later.

        The findings that begin or end with it stand behind it in the file.
        """
        self._file.write(metrics)
        for sink in self._sinks:
            sink.write(metrics)
        findings = self._judging.hear(as_row(metrics))
        self._note(findings)
        return findings

    def _note(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._file.write(finding.to_row())

    def sync(self) -> None:
        """Force the rows to the disk, before a checkpoint that stands on them is whole."""
        self._file.sync()

    def cut_back(self, step: int) -> Cut:
        """A rollback: rows after `step` go to a file beside the metrics; the sinks follow."""
        cut = self._file.cut_back(step)
        self._note(self._judging.begin())
        for sink in self._sinks:
            sink.cut_back()
        return cut

    def close(self, *, failed: bool = False, finished: bool = True) -> None:
        """End the file, then the sinks."""
        try:
            self._file.close()
        finally:
            for sink in self._sinks:
                sink.close(failed=failed, finished=finished)

    @property
    def how_to_sync(self) -> str | None:
        """The command that brings W&B the rows that its server has not, or None when it has all."""
        if any(isinstance(sink, WandbSink) and sink.is_behind for sink in self._sinks):
            return f"electra-dist wandb sync {self._run.path}"
        return None
