"""One study: its trials in a file, worked on by any number of processes.

    OUT/
        study.db           Optuna's own tables (SQLite)
        logs/0007.log      what the training of trial 7 said
        best/              fine-tuning: the model of the best trial
        history.png  importances.png

A study knows what it is about: the same command goes on with it, another one is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from electra_dist.console import human_seconds, say
from electra_dist.errors import UserError
from electra_dist.files.staging import check_folder_can_be_made
from electra_dist.search.space import Dimension, suggest

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

DATABASE = "study.db"
_LOCK = ".lock"
_ABOUT = "about"
#: How many processes have worked on the study so far.
_WORKERS = "workers"
#: A process that gives no sign for so long is dead, and its trial is repeated.
_HEARTBEAT_SECONDS = 20
_DEAD_AFTER_SECONDS = 90
_MOST_REPEATS = 3
#: Waits for another process that writes.
_LOCK_SECONDS = 120
_LOOK_AGAIN_SECONDS = 2.0

#: The training of one trial: its values, and what it may report to. Returns the value to compare.
Objective = Callable[["OneTrial"], float]


class DivergedTrialError(Exception):
    """The training of a trial diverged; the search goes on without a value."""


class _SurplusError(Exception):
    """Another process has the last trial."""


@dataclass(frozen=True)
class About:
    """What a study searches for; it cannot change.

    space      what is varied, as the user wrote it
    metric     what is compared
    direction  which values are better
    base       everything else that the value depends on
    """

    space: tuple[str, ...]
    metric: str
    direction: Literal["minimize", "maximize"]
    base: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it is kept, in the types of JSON."""
        content: dict[str, Any] = json.loads(json.dumps(vars(self), default=str))
        return content


class OneTrial:
    """A trial at work.

    index    its place in the study, from 0
    number   the same; of a repeated trial that of the first try
    values   what is varied
    log      where its training may write
    """

    def __init__(self, trial: Trial, values: Mapping[str, Any], folder: Path) -> None:
        self._trial = trial
        self.index = trial.number
        self.number = first_number(trial.study.get_trials(deepcopy=False)[trial.number])
        self.values = dict(values)
        self.log = folder / "logs" / f"{self.number:04d}.log"

    def should_stop(self, value: float, at: int) -> bool:
        """Note the value at a point of the training; whether it is worse than the median of the
        earlier trials there.
        """
        with contextlib.suppress(ValueError):  # a repeated trial tells a point again
            self._trial.report(value, at)
        return self._trial.should_prune()

    def prune(self) -> None:
        """End the trial without a value."""
        from optuna import TrialPruned

        raise TrialPruned


def open_study(folder: Path, about: About) -> Study:
    """The study in the folder, new where there is none.

    Raises `UserError` for a folder that holds other things, or a study of something else.
    """
    check_folder_can_be_made(folder)
    folder.mkdir(exist_ok=True)
    wanted = about.to_dict()
    with _alone(folder):
        if not (folder / DATABASE).is_file() and any(one.name != _LOCK for one in folder.iterdir()):
            (folder / _LOCK).unlink()
            raise UserError(
                f"`out` {folder}: is not empty and holds no study; nothing was changed, give a new"
                " folder"
            )
        (folder / "logs").mkdir(exist_ok=True)
        study = _load(folder, about.direction)
        known = study.user_attrs.get(_ABOUT)
        if known is None:
            study.set_user_attr(_ABOUT, wanted)
            known = wanted
    if known != wanted:
        raise UserError(
            f"{folder}: is a study of something else ({_differences(known, wanted)}); give these"
            " the same, or another `out`"
        )
    return study


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process makes a study here meanwhile."""
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def existing_study(folder: Path) -> Study:
    """A study to look at; raises `UserError` where there is none."""
    if not (folder / DATABASE).is_file():
        raise UserError(f"{folder}: holds no {DATABASE}; expected the folder of a search")
    direction: Literal["minimize", "maximize"] = "minimize"  # an existing one keeps its own
    study = _load(folder, direction)
    if _ABOUT not in study.user_attrs:
        raise UserError(f"{folder / DATABASE}: is a study of something else than this command's")
    return study


def about_of(study: Study) -> About:
    """What it searches for."""
    known = dict(study.user_attrs[_ABOUT])
    return About(**{**known, "space": tuple(known["space"])})


def _load(folder: Path, direction: Literal["minimize", "maximize"]) -> Study:
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # So it calls what it has for trials of dead processes.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    path = folder / DATABASE
    try:
        storage = RDBStorage(
            f"sqlite:///{path.resolve()}",
            engine_kwargs={"connect_args": {"timeout": _LOCK_SECONDS}},
            heartbeat_interval=_HEARTBEAT_SECONDS,
            grace_period=_DEAD_AFTER_SECONDS,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
                max_retry=_MOST_REPEATS
            ),
        )
        return optuna.create_study(
            storage=storage,
            study_name="search",
            direction=direction,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0),
        )
    except (SQLAlchemyError, sqlite3.Error, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be opened as a study: {reason}") from error


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    flat_known = _flat(known)
    flat_wanted = _flat(wanted)
    names = [
        name
        for name in {**flat_known, **flat_wanted}
        if flat_known.get(name) != flat_wanted.get(name)
    ]
    return "; ".join(
        f"{name}: {flat_known.get(name)}, not {flat_wanted.get(name)}" for name in names
    )


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in content.items() if name != "base"}
    return {**own, **content.get("base", {})}


# --- the work -------------------------------------------------------------------------------------


class Worker:
    """One process at work on a study."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        space: tuple[Dimension, ...],
        objective: Objective,
        afterwards: Callable[[OneTrial], None] = lambda trial: None,
    ) -> None:
        """`afterwards` is called when the study knows the value of a trial."""
        self._study = study
        self._folder = folder
        self._space = space
        self._objective = objective
        self._afterwards = afterwards
        self._started = time.monotonic()
        self._own: list[OneTrial] = []

    def work(self, trials: int, seed: int = 0) -> None:
        """Train trials until the study has `trials` of them, those of other processes too.

        Trials that were pruned or diverged count. An error of the user ends the work, and so does
        an interruption, after which another process repeats the trial.
        """
        import optuna

        with _alone(self._folder):
            before_us = self._study.user_attrs.get(_WORKERS, 0)
            self._study.set_user_attr(_WORKERS, before_us + 1)
        # With the same seed, two processes would begin with the same trials.
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + before_us, multivariate=True)
        while len(finished(self._study)) < trials:
            if len(_counted(self._study)) >= trials and not _waiting(self._study):
                self._wait()
                continue
            before = len(self._own)
            try:
                self._study.optimize(
                    lambda trial: self._train(trial, trials), n_trials=1, catch=_SurplusError
                )
            except KeyboardInterrupt:
                for trial in self._own[before:]:
                    _repeat(self._study, trial.index)
                raise
            for trial in self._own[before:]:
                self._afterwards(trial)
                say(self._line(trial, trials))

    def _train(self, trial: Trial, trials: int) -> float:
        if _place(self._study, trial.number) >= trials:
            raise _SurplusError
        one = OneTrial(trial, suggest(self._space, trial), self._folder)
        self._own.append(one)
        try:
            return self._objective(one)
        except DivergedTrialError as error:
            trial.set_user_attr("diverged", str(error))
            one.prune()
            raise

    def _wait(self) -> None:
        """Other processes have the last trials; one that died has left its own to us."""
        from optuna.storages import fail_stale_trials

        time.sleep(_LOOK_AGAIN_SECONDS)
        fail_stale_trials(self._study)

    def _line(self, ended: OneTrial, trials: int) -> str:
        """Of a trial that has just ended."""
        trial = self._study.get_trials(deepcopy=False)[ended.index]
        done = len(finished(self._study))
        values = "  ".join(f"{name} {short(value)}" for name, value in trial.params.items())
        line = f"trial {first_number(trial):>3}  {values}  {outcome(self._study, trial)}"
        best = best_trial(self._study)
        if best is not None:
            line += f"  best {best.value:.4f} (trial {first_number(best)})"
        each = (time.monotonic() - self._started) / len(self._own)
        left = human_seconds(each * max(trials - done, 0))
        return f"{line}  {done}/{trials}, {left} left with one process"


def _repeat(study: Study, number: int) -> None:
    """Give a trial that was interrupted to whoever is next."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    frozen = study.get_trials()[number]
    RetryHeartbeatStaleTrialCallback(max_retry=_MOST_REPEATS)(study, frozen)


def outcome(study: Study, trial: FrozenTrial) -> str:
    """What came of a trial, in words."""
    from optuna.trial import TrialState

    if trial.value is not None and trial.state == TrialState.COMPLETE:
        return f"{about_of(study).metric} {trial.value:.4f}"
    if "diverged" in trial.user_attrs:
        return "diverged"
    return trial.state.name.lower()


def short(value: Any) -> str:
    """A value for a line or a table."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def finished(study: Study) -> list[FrozenTrial]:
    """Trials that ended, well or early."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _counted(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
    return study.get_trials(deepcopy=False, states=states)


def _waiting(study: Study) -> bool:
    """Whether a trial is to be repeated."""
    from optuna.trial import TrialState

    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _place(study: Study, number: int) -> int:
    """How many of the trials that count began before this one."""
    return sum(one.number < number for one in _counted(study))


def best_trial(study: Study) -> FrozenTrial | None:
    """The best that ended well; None while there is none."""
    try:
        return study.best_trial
    except ValueError:
        return None


def first_number(trial: FrozenTrial) -> int:
    """The number of the first try."""
    return int(trial.system_attrs.get("failed_trial", trial.number))
