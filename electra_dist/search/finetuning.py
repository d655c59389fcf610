"""The search for the numbers of a fine-tuning: what is varied are fields of `Recipe`.

A trial is a fine-tuning of its own, with all seeds; compared is the median over them. The model of
the best trial lies in OUT/best, those of the others are not kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.errors import UserError, nearest
from electra_dist.finetune.model_folder import WEIGHTS
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.registry import TASKS, check_options
from electra_dist.finetune.run import Settings, chosen_score, finetune
from electra_dist.finetune.seeds.callbacks import DivergedError
from electra_dist.finetune.seeds.work import fingerprint
from electra_dist.search.space import Dimension
from electra_dist.search.study import (
    About,
    DivergedTrialError,
    OneTrial,
    Worker,
    best_trial,
    first_number,
    open_study,
)

if TYPE_CHECKING:
    from optuna.study import Study

    from electra_dist.finetune.predictor import Scores

#: Not a number of the training.
_FIXED = ("keep_head",)


def search_finetuning(settings: Settings, space: tuple[Dimension, ...], trials: int) -> Study:
    """Fine-tune until the study in `settings.out` has `trials` trials.

    Compared is the score that also chooses epoch and seed. Raises `UserError` for what cannot be
    varied, without held-out examples, or what a fine-tuning itself refuses.
    """
    _check(settings, space)
    score = chosen_score(settings)
    about = About(
        space=tuple(dimension.text for dimension in space),
        metric=score.name,
        direction="minimize" if score.lower_is_better else "maximize",
        base=_base(settings),
    )
    study = open_study(settings.out, about)

    def train(trial: OneTrial) -> float:
        return _train(settings, trial, about.metric)

    def keep_best(trial: OneTrial) -> None:
        _keep_best(study, settings.out, trial)

    Worker(study, settings.out, space, train, keep_best).work(trials, settings.seeds[0])
    return study


def _check(settings: Settings, space: tuple[Dimension, ...]) -> None:
    if settings.task not in TASKS:
        raise UserError(f"`task` {settings.task}: expected one of {', '.join(TASKS)}")
    if settings.dev is None:
        raise UserError("`dev`: missing; trials are compared on held-out examples")
    check_options(settings.task, [dimension.name for dimension in space])
    names = [one.name for one in fields(Recipe) if one.name not in _FIXED]
    for dimension in space:
        if dimension.name not in names:
            raise UserError(
                f"{dimension.text}: no number of a fine-tuning{nearest(dimension.name, names)};"
                f" expected one of {', '.join(names)}"
            )
        if dimension.name in settings.recipe:
            raise UserError(
                f"{dimension.text}: is varied and given as"
                f" {settings.recipe[dimension.name]}; give one of them"
            )


def _base(settings: Settings) -> dict[str, Any]:
    """What a value depends on but for what is varied; files by their content."""
    assert settings.dev is not None
    return {
        "model": fingerprint(settings.model / WEIGHTS),
        "train": fingerprint(settings.train),
        "dev": fingerprint(settings.dev),
        "task": settings.task,
        "columns": settings.columns,
        "recipe": settings.recipe,
        "seeds": list(settings.seeds),
        "drop_unlabelled": settings.drop_unlabelled,
        "clean": list(settings.clean),
        "keep_head": settings.keep_head,
    }


def _train(settings: Settings, trial: OneTrial, metric: str) -> float:
    out = _model_of(settings.out, trial)
    shutil.rmtree(out, ignore_errors=True)  # of a try that was killed
    mine = replace(settings, out=out, recipe={**settings.recipe, **trial.values})
    pruned = False

    def after_epoch(seed: int, epoch: float, scores: Scores) -> bool:
        nonlocal pruned
        if pruned or seed != settings.seeds[0]:
            return pruned
        pruned = trial.should_stop(_value(scores, metric), round(epoch * 1000))
        return pruned

    with trial.log.open("a", encoding="utf-8") as log, redirect_stdout(log):
        try:
            report = finetune(mine, after_epoch)
        except DivergedError as error:
            raise DivergedTrialError(str(error)) from error
        finally:
            if pruned:
                shutil.rmtree(out, ignore_errors=True)
    if pruned:
        trial.prune()
    return _value(report.median, metric)


def _value(scores: Mapping[str, float], metric: str) -> float:
    if metric not in scores:
        raise UserError(f"`metric` {metric}: is no score here; expected one of {', '.join(scores)}")
    return scores[metric]


def _model_of(folder: Path, trial: OneTrial) -> Path:
    return folder / "trials" / f"{trial.number:04d}"


def _keep_best(study: Study, folder: Path, trial: OneTrial) -> None:
    """The model of a trial that has just ended takes the place of the best, or goes."""
    own = _model_of(folder, trial)
    best = best_trial(study)
    if best is not None and first_number(best) == trial.number and own.is_dir():
        old = folder / f".best.{trial.number:04d}.old"
        if (folder / "best").exists():
            (folder / "best").rename(old)
        own.rename(folder / "best")
        shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(own, ignore_errors=True)
