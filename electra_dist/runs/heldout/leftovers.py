"""What lies in a run directory of steps that the run has gone back behind."""

from __future__ import annotations

from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.evaluations import evaluations_folder
from electra_dist.runs.heldout.samples import samples_folder
from electra_dist.runs.heldout.stepped import remove_later


def remove_later_files(run: RunDir, step: int) -> None:
    """Remove samples and evaluations of after `step`, which the run goes on from: they are made
    again. Raises `OSError`.
    """
    remove_later(samples_folder(run), step)
    remove_later(evaluations_folder(run), step)
