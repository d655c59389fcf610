"""Which validation of a run is the best so far, and whether patience is at an end; the ranks agree.

Comes in: the rows of metrics.jsonl where training begins or goes back to, then each validation.
Goes out: whether the run ends early, whether the last validation is worth a checkpoint, and what
retention must keep. `electra_dist.runs.heldout.best` has the rules.
"""

from __future__ import annotations

from electra_dist.config import Config
from electra_dist.console import warn
from electra_dist.files.writing import reason
from electra_dist.parallel.collectives import broadcast_object
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout import best
from electra_dist.runs.heldout.best import Course, EarlyStop, Point
from electra_dist.runs.heldout.leftovers import remove_later_files
from electra_dist.runs.metrics import Metric, Metrics


class Selection:
    """The validations of one run, by the metrics that it is judged by."""

    def __init__(self, config: Config, run: RunDir, world: World) -> None:
        self._config = config
        self._run = run
        self._world = world
        self._to_stop = Course(best.stop_metric(config))
        self._to_keep = Course(best.best_metric(config))

    def begin(self, step: int) -> None:
        """Stand after `step`, as the rows up to there say: samples and evaluations of later steps
        go. Every rank must call it.
        """
        if self._world.is_main:
            self._remove_later(step)
        self._to_stop = self._recorded(self._to_stop.metric, step)
        self._to_keep = self._recorded(self._to_keep.metric, step)

    def add(self, row: Metrics) -> None:
        """Take in the row of a validation."""
        self._to_stop = self._to_stop.with_row(row)
        self._to_keep = self._to_keep.with_row(row)

    def early_stop_at(self, step: int) -> EarlyStop | None:
        """Why the run ends after `step`; None where it goes on. A run ends where it was validated:
        with changed keys it goes on to the next validation at least.
        """
        points = self._to_stop.points
        if not points or points[-1].step != step:
            return None
        return best.early_stop(self._config, self._to_stop)

    @property
    def to_keep(self) -> Course | None:
        """What retention keeps the best checkpoint by; None where it keeps none for that."""
        if self._config.checkpoint.keep_best:
            return self._to_keep
        return None

    def is_best(self, step: int) -> bool:
        """Whether the validation after `step` is the best so far, and its checkpoint to be kept."""
        if self.to_keep is None:
            return False
        found = self.to_keep.best()
        return found is not None and found.step == step

    def _remove_later(self, step: int) -> None:
        try:
            remove_later_files(self._run, step)
        except OSError as error:
            warn(f"{self._run.path}: what is of after step {step} stays: {reason(error)}")

    def _recorded(self, metric: Metric, step: int) -> Course:
        points: list[Point] = []
        if self._world.is_main:
            points = list(Course.of(metric, self._run.read_metrics(), step).points)
        agreed = broadcast_object(points, self._world)
        return Course(metric, tuple(Point(*point) for point in agreed))


def stopped_before(config: Config, run: RunDir, step: int, world: World) -> str:
    """How the run has stopped early, whose newest checkpoint is of `step`; empty where it has not,
    or where changed keys let it go on. Every rank must call it.
    """
    sentence = ""
    if world.is_main:
        found = best.recorded_early_stop(run, config, step)
        if found is not None:
            sentence = found.sentence
    agreed: str = broadcast_object(sentence, world)
    return agreed
