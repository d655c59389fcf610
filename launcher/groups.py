"""Runs that belong together: a sweep, or all runs of a folder.

Comes in: a folder. Goes out: a `Group`: its members with their states, how far they are together,
and the best of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from launcher.find import all_runs
from launcher.held_out import best_run
from launcher.status import RunStatus, status


@dataclass(frozen=True)
class Group:
    """The runs of one folder.

    states    how many of them are in which state
    progress  steps done of all steps, as a fraction; None where no run says how many it has
    best      the run with the lowest held-out loss; None where they cannot be compared
    """

    folder: str
    runs: tuple[RunStatus, ...]
    states: dict[str, int]
    progress: float | None
    best: str | None


def groups(folder: Path) -> list[Group]:
    """The runs of a folder, those of a sweep in it as a group of their own;
    raises `UserError` where there is no run.
    """
    members: dict[Path, list[RunStatus]] = {}
    for run in all_runs(folder):
        members.setdefault(run.path.parent, []).append(status_or_damage(run))
    return [group_of(path, found) for path, found in members.items()]


def status_or_damage(run: RunDir) -> RunStatus:
    """The status of a run, or that it is damaged, and why: one run never hides the others."""
    try:
        return status(run)
    except (UserError, OSError) as error:
        return RunStatus(str(run.path), "damaged", str(error))


def group_of(folder: Path, runs: list[RunStatus]) -> Group:
    """These runs as a group."""
    measured = [run for run in runs if run.steps]
    total = sum(run.steps or 0 for run in measured)
    done = sum(min(run.step or 0, run.steps or 0) for run in measured)
    progress = None
    if total:
        progress = done / total
    best = best_run((run.run, run.best_held_out) for run in runs)
    states = Counter[str](run.state for run in runs)
    return Group(str(folder), tuple(runs), dict(states), progress, best)
