"""Several runs, read and laid side by side.

Comes in: paths. Goes out: `Comparison`. A run that cannot be read is a sentence in `problems`; the
others are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import UserError
from electra_dist.references import Reference, load_reference
from electra_dist.report.loading import LoadedRun, find_runs, labels_of, load_run


@dataclass(frozen=True)
class Comparison:
    """The runs of one report, the first of which the others are compared with.

    problems   a sentence for each run that was left out
    reference  whose bands the curves are drawn over
    """

    runs: tuple[LoadedRun, ...]
    problems: tuple[str, ...] = ()
    reference: Reference | None = None


def compare(paths: Iterable[Path], reference: str | None = None) -> Comparison:
    """Read the runs at `paths`, folders of runs included, and the `reference` of this name.

    Raises `UserError` for a path that is neither, where no run at all can be read, and for a
    reference that is not there.
    """
    measure = None
    if reference is not None:
        measure = load_reference(reference)
    found = find_runs(paths)
    runs = []
    problems = []
    for run, label in zip(found, labels_of(found), strict=True):
        try:
            runs.append(load_run(run, label))
        except UserError as error:
            if len(found) == 1:
                raise
            problems.append(f"{label} is left out: {error}")
    if not runs:
        raise UserError("no run can be shown; " + "; ".join(problems))
    return Comparison(tuple(runs), tuple(problems), measure)
