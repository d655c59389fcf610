"""Which validation of a run is the best, and whether patience is at an end.

Comes in: the rows of metrics.jsonl, and the keys `validation.stop_metric`, `validation.patience`,
`validation.min_improvement`, `checkpoint.keep_best`. Goes out: a `Course`, the `EarlyStop`, the
best checkpoint. All of it follows from the rows up to a step: so it is right after a resume, on any
world size, after a rollback and after a change of these keys. Needs no torch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.errors import CheckpointError, ConfigError, UserError
from electra_dist.objectives import HELD_OUT, Metric, objectives
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import Row


class Point(NamedTuple):
    """The value of one validation."""

    step: int
    value: float


@dataclass(frozen=True)
class Course:
    """The values of one held-out metric, oldest first; undefined ones are left out.

    A value has fp32 precision, as in metrics.jsonl: a run that was interrupted compares the same
    numbers as one that was not.
    """

    metric: Metric
    points: tuple[Point, ...] = ()

    @classmethod
    def of(cls, metric: Metric, rows: Iterable[Row], last_step: int | None = None) -> Course:
        """That of the rows up to `last_step`, by default of all."""
        values: dict[int, float] = {}
        for row in rows:
            value = _number(row.get(metric.name_held_out))
            if value is not None and (last_step is None or row["step"] <= last_step):
                values[row["step"]] = value
        return cls(metric, tuple(Point(step, values[step]) for step in sorted(values)))

    def with_row(self, row: Row) -> Course:
        """One validation more."""
        value = _number(row.get(self.metric.name_held_out))
        if value is None:
            return self
        return Course(self.metric, (*self.points, Point(row["step"], value)))

    def best(self) -> Point | None:
        """The best value, the earliest of equal ones; None where there is none."""
        found = None
        for point in self.points:
            if found is None or self._gain(found.value, point.value) > 0:
                found = point
        return found

    def among(self, steps: Collection[int]) -> Course:
        """The values of these steps alone."""
        return Course(self.metric, tuple(one for one in self.points if one.step in steps))

    def records_after(self, step: int) -> list[Point]:
        """Each value that was better than all before it; of those up to `step` only the last.

        One of them is the best again after any return to `step` or later.
        """
        found: list[Point] = []
        for point in self.points:
            if found and self._gain(found[-1].value, point.value) <= 0:
                continue
            if found and point.step <= step:
                found.pop()
            found.append(point)
        return found

    def waited(self, min_improvement: float) -> int:
        """Validations since the last one that was better by more than `min_improvement` than the
        one that counted before.
        """
        reference = None
        waited = 0
        for point in self.points:
            if reference is None or self._gain(reference, point.value) > min_improvement:
                reference = point.value
                waited = 0
            else:
                waited += 1
        return waited

    def _gain(self, before: float, after: float) -> float:
        """By how much `after` is better."""
        if self.metric.best == "max":
            return after - before
        return before - after


def _number(value: object) -> float | None:
    """A finite number in fp32 precision, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        single: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return None
    if math.isfinite(single):
        return single
    return None


# --- the metric -----------------------------------------------------------------------------------


def choosable_metrics() -> dict[str, Metric]:
    """The held-out metrics that have a better and a worse, by name."""
    found = [
        metric for objective in objectives() for metric in (objective.loss, *objective.metrics)
    ]
    return {one.name: one for one in found if one.held_out and one.best in ("min", "max")}


def stop_metric(config: Config) -> Metric:
    """That of `validation.stop_metric`; raises `ConfigError`."""
    return _metric("validation.stop_metric", config.validation.stop_metric)


def best_metric(config: Config) -> Metric:
    """What the best checkpoint goes by: `checkpoint.keep_best` where it names a metric, otherwise
    `validation.stop_metric`. Raises `ConfigError`.
    """
    named = config.checkpoint.keep_best
    if isinstance(named, str):
        return _metric("checkpoint.keep_best", named)
    return stop_metric(config)


def check_metrics(config: Config) -> None:
    """Raise `ConfigError` where a key names no metric that a run could go by."""
    stop_metric(config)
    best_metric(config)


def _metric(key: str, name: str) -> Metric:
    known = choosable_metrics()
    if name not in known:
        raise ConfigError(
            f"{key} = {name}: no held-out metric to choose by; expected one of {', '.join(known)}"
        )
    return known[name]


# --- early stopping -------------------------------------------------------------------------------


@dataclass(frozen=True)
class EarlyStop:
    """A run that has ended before `train.steps`, because its held-out metric did not improve.

    step         after which it ended
    metric       name of the metric, without `validation/`
    best_step    of the best validation
    best_value   there
    validations  without an improvement
    improvement  that would have counted: more than this
    """

    step: int
    metric: str
    best_step: int
    best_value: float
    validations: int
    improvement: float

    @property
    def sentence(self) -> str:
        least = ""
        if self.improvement:
            least = f" by more than {self.improvement:g}"
        return (
            f"stopped early at step {self.step}: {HELD_OUT}{self.metric} has not improved{least}"
            f" in {self.validations} validations; best {self.best_value:.5g} at step"
            f" {self.best_step}"
        )


def early_stop(config: Config, course: Course) -> EarlyStop | None:
    """The early stop after the last validation of `course`, which goes by `stop_metric`; None where
    the run goes on or has come to its last step.
    """
    patience = config.validation.patience
    best = course.best()
    if patience is None or best is None:
        return None
    last = course.points[-1].step
    improvement = config.validation.min_improvement
    waited = course.waited(improvement)
    if waited < patience or last >= config.train.steps:
        return None
    return EarlyStop(last, course.metric.name, best.step, best.value, waited, improvement)


def recorded_early_stop(run: RunDir, config: Config, saved: int | None) -> EarlyStop | None:
    """How a run has stopped early, where its newest checkpoint, that of step `saved`, is of that
    step: any other one has more to train. Raises `ConfigError`.
    """
    if saved is None or config.validation.patience is None:
        return None
    stop = early_stop(config, Course.of(stop_metric(config), run.read_metrics(), saved))
    if stop is not None and stop.step == saved:
        return stop
    return None


# --- the best checkpoint --------------------------------------------------------------------------


class BestSaved(NamedTuple):
    """The best validation whose checkpoint is there.

    metric  name, without `validation/`
    """

    metric: str
    step: int
    value: float

    @property
    def sentence(self) -> str:
        return f"step {self.step:,}, {HELD_OUT}{self.metric} {self.value:.5g}"


def best_saved(run: RunDir, config: Config) -> BestSaved | None:
    """The best checkpoint of a run, by the metric of its configuration; None where no validated
    step is saved. Raises `ConfigError`.
    """
    metric = best_metric(config)
    course = Course.of(metric, run.read_metrics())
    found = course.among(run.complete_checkpoints()).best()
    if found is None:
        return None
    return BestSaved(metric.name, *found)


def best_step(run: RunDir) -> int:
    """The step of the best checkpoint; raises `CheckpointError` where there is none, and
    `ConfigError`.
    """
    config = configuration.load(run.config)
    found = best_saved(run, config)
    if found is None:
        raise CheckpointError(
            f"{run.path}: no checkpoint is of a step that was validated by"
            f" {HELD_OUT}{best_metric(config).name}, so none is the best; set"
            " checkpoint.keep_best=true, which saves there, or give the number of a step"
        )
    return found.step


def course_to_keep(run: RunDir, config: Config) -> Course | None:
    """What `checkpoint.keep_best` goes by; None where it is off. Raises `ConfigError`."""
    if not config.checkpoint.keep_best:
        return None
    return Course.of(best_metric(config), run.read_metrics())


def best_of_list(run: RunDir) -> int | None:
    """The step of the best checkpoint, for a list; None too where that cannot be known."""
    try:
        found = best_saved(run, configuration.load(run.config))
    except UserError:
        return None
    if found is None:
        return None
    return found.step
