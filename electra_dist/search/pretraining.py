"""The search for keys of a pre-training: each trial is a run of its own.

A run is named NAME-t0007, and its group in W&B is the folder of the study. Compared is its best
validation by `validation.stop_metric`. A trial that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from electra_dist import config as configuration
from electra_dist.errors import EXIT_DIVERGED, EXIT_OK, EXIT_UNFINISHED, UserError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import Course, stop_metric
from electra_dist.search.space import Dimension
from electra_dist.search.study import (
    About,
    DivergedTrialError,
    OneTrial,
    Worker,
    open_study,
)

if TYPE_CHECKING:
    from optuna.study import Study

_LOOK_AGAIN_SECONDS = 1.0
_LAST_LINES = 5


@dataclass(frozen=True)
class Pretraining:
    """What a trial trains.

    config     the file
    overrides  keys in place of those of the file
    processes  on this machine
    """

    config: Path
    overrides: tuple[str, ...] = ()
    processes: int = 1


def search_pretraining(
    training: Pretraining, out: Path, space: tuple[Dimension, ...], trials: int, seed: int = 0
) -> Study:
    """Train runs until the study in `out` has `trials` trials.

    Raises `ConfigError` for a key that cannot be varied or set, `UserError` for a run that fails.
    """
    config = configuration.load(training.config, training.overrides)
    metric = stop_metric(config)
    given = {word.partition("=")[0] for word in training.overrides}
    for dimension in space:
        if dimension.name in given:
            raise UserError(f"{dimension.text}: is varied and given; give one of them")
        _check_values(training, dimension)
    if not config.validation.every:
        raise UserError("validation.every = 0: trials are compared by validations; set it")
    about = About(
        space=tuple(dimension.text for dimension in space),
        metric=metric.name_held_out,
        direction="minimize" if metric.best == "min" else "maximize",
        base=_flat(yaml.safe_load(configuration.resolved_yaml(config))),
    )
    study = open_study(out, about)

    def train(trial: OneTrial) -> float:
        return _train(training, config, out, trial)

    Worker(study, out, space, train).work(trials, seed)
    return study


def _check_values(training: Pretraining, dimension: Dimension) -> None:
    """Each end of the range, or each value, must be one that the configuration takes."""
    for value in dimension.examples:
        configuration.load(training.config, [*training.overrides, f"{dimension.name}={value}"])


def _flat(content: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def _train(
    training: Pretraining, config: configuration.Config, out: Path, trial: OneTrial
) -> float:
    name = f"{config.run.name}-t{trial.number:04d}"
    values = [f"{key}={value}" for key, value in trial.values.items()]
    own = [f"run.name={name}", f"tracking.group={out.name}", "tracking.job_type=search"]
    command = _command(training, [*training.overrides, *own, *values])
    run = RunDir(config.run.path.parent / name)
    course = Course(stop_metric(config))
    pruned = False
    with (
        trial.log.open("a", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            while process.poll() is None:
                time.sleep(_LOOK_AGAIN_SECONDS)
                pruned = pruned or _is_hopeless(trial, _course(run, course))
                if pruned:
                    process.send_signal(signal.SIGTERM)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # it saves, and goes on when it is repeated
                process.wait()
    if pruned and process.returncode in (EXIT_OK, EXIT_UNFINISHED):
        trial.prune()
    if process.returncode == EXIT_DIVERGED:
        raise DivergedTrialError(f"run {name} diverged")
    if process.returncode != EXIT_OK:
        raise UserError(
            f"run {name} ended with status {process.returncode}; the end of {trial.log}:\n"
            + "\n".join(_last_lines(trial.log))
        )
    best = _course(run, course).best()
    if best is None:
        raise UserError(f"run {name} has no validation to compare; lower validation.every")
    return best.value


def _command(training: Pretraining, overrides: Sequence[str]) -> list[str]:
    start = [sys.executable, "-m", "electra_dist.cli"]
    if training.processes == 1:
        return [*start, "train", str(training.config), *overrides]
    processes = ["--processes", str(training.processes)]
    return [*start, "launch", "local", str(training.config), *processes, *overrides]


def _course(run: RunDir, empty: Course) -> Course:
    if not run.metrics.is_file():
        return empty
    return Course.of(empty.metric, run.read_metrics())


def _is_hopeless(trial: OneTrial, course: Course) -> bool:
    hopeless = False
    for point in course.points[-1:]:
        hopeless = trial.should_stop(point.value, point.step)
    return hopeless


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        return file.read().decode("utf-8", "replace").splitlines()[-_LAST_LINES:]
