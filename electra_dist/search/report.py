"""What a study found: its trials, the best one, how much each number mattered, and two pictures."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.files.pictures import pyplot, save_picture
from electra_dist.search.study import (
    about_of,
    best_trial,
    finished,
    first_number,
    outcome,
    short,
)

if TYPE_CHECKING:
    from optuna.study import Study

#: Fewer trials say nothing of what mattered.
_ENOUGH_TRIALS = 8
_COLOUR = "#3b6ea5"


@dataclass(frozen=True)
class FoundTrial:
    """One trial that ended; `value` is None where it ended early."""

    number: int
    values: dict[str, Any]
    value: float | None
    outcome: str
    seconds: float


@dataclass(frozen=True)
class SearchReport:
    """What a study found.

    trials       in their order
    best         None while none ended well
    importances  fraction of the variance of the values that a number explains (functional ANOVA,
                 Hutter and others, 2014); empty with too few trials
    """

    out: Path
    metric: str
    direction: str
    trials: tuple[FoundTrial, ...]
    best: FoundTrial | None
    importances: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """In the types of JSON."""
        return {**asdict(self), "out": str(self.out)}

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of a table, the best first; those that ended early last."""
        sign = -1 if self.direction == "maximize" else 1
        ordered = sorted(
            self.trials, key=lambda one: (one.value is None, sign * (one.value or 0.0), one.number)
        )
        return [
            (
                str(one.number),
                *(short(value) for value in one.values.values()),
                one.outcome if one.value is None else f"{one.value:.4f}",
                f"{one.seconds:.0f}",
            )
            for one in ordered
        ]

    def header(self) -> tuple[str, ...]:
        """Of the table."""
        names = self.trials[0].values if self.trials else ()
        return ("trial", *names, self.metric, "seconds")


def report_of(study: Study, out: Path) -> SearchReport:
    """What is known by now."""
    about = about_of(study)
    trials = {
        one.number: FoundTrial(
            first_number(one),
            dict(one.params),
            None if one.state.name == "PRUNED" else one.value,
            outcome(study, one),
            one.duration.total_seconds() if one.duration else 0.0,
        )
        for one in finished(study)
    }
    best = best_trial(study)
    return SearchReport(
        out=out,
        metric=about.metric,
        direction=about.direction,
        trials=tuple(trials.values()),
        best=None if best is None else trials[best.number],
        importances=_importances(study),
    )


def _importances(study: Study) -> dict[str, float]:
    import optuna

    complete = [one for one in finished(study) if one.state.name == "COMPLETE"]
    if len(complete) < _ENOUGH_TRIALS or len({one.value for one in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def draw(report: SearchReport) -> list[Path]:
    """`history.png` and, with enough trials, `importances.png`; returns what was drawn."""
    plt = pyplot()
    drawn = []
    if report.best is not None:
        drawn.append(_draw_history(plt, report))
    if report.importances:
        drawn.append(_draw_importances(plt, report))
    return drawn


def _draw_history(plt: Any, report: SearchReport) -> Path:
    """The value of each trial, and the best so far."""
    values = {one.number: one.value for one in report.trials if one.value is not None}
    choose = max if report.direction == "maximize" else min
    best = list(itertools.accumulate(values.values(), choose))
    figure, axes = plt.subplots(figsize=(8, 4.5))
    axes.plot(list(values), list(values.values()), "o", color=_COLOUR, label="trial")
    axes.step(list(values), best, where="post", color="#c0504d", label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(report.metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return _save(figure, report.out / "history.png")


def _draw_importances(plt: Any, report: SearchReport) -> Path:
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.4 * len(report.importances)))
    names = list(report.importances)[::-1]
    bars = axes.barh(names, [report.importances[name] for name in names], color=_COLOUR)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel(f"fraction of the variance of {report.metric} that it explains")
    axes.set_xlim(0, 1.1)
    return _save(figure, report.out / "importances.png")


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    save_picture(figure, path)
    return path
