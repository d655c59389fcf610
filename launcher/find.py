"""Which run is meant: by the path of its directory, by the id of a job, or all runs of a folder.

Comes in: a word of the user. Goes out: run directories. A sweep is a folder of runs.
"""

from __future__ import annotations

import re
from pathlib import Path

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from launcher.records import records
from launcher.slurm import queue

_JOB_ID = re.compile(r"^\d+(_\d+)?$")


def find_run(target: str) -> RunDir:
    """The run directory that `target` names: a path, or the id of a job; raises `UserError`."""
    if _JOB_ID.match(target) and not Path(target).exists():
        if queue.has_slurm():
            folder = queue.run_dir_of(target)
        else:
            folder = None
        if folder is None:
            raise UserError(
                f"job {target}: not known to Slurm here any more; give the run directory instead"
            )
        return _of_array_task(folder, target)
    run = RunDir(Path(target))
    if not run.config.is_file() and not records(run):
        return RunDir.existing(run.path)  # which says what a run directory is
    return run


def _of_array_task(folder: Path, job_id: str) -> RunDir:
    """`folder` itself, or the run of a sweep in it that this task of the array trains."""
    if records(RunDir(folder)):
        return RunDir(folder)
    tasks = [RunDir(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()]
    for run in tasks:
        if any(job_id in record.job_ids for record in records(run)):
            return run
    names = ", ".join(str(run.path) for run in tasks if records(run))
    raise UserError(f"job {job_id}: is a sweep; give one of its runs: {names}")


def all_runs(folder: Path) -> list[RunDir]:
    """Every run in `folder`, and in the sweeps there, by name;
    raises `UserError` when there is none.
    """
    if folder.is_dir():
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    else:
        entries = []
    found = []
    for entry in entries:
        if not is_run(entry):
            inside = sorted(path for path in entry.iterdir() if path.is_dir())
        else:
            inside = []
        found += [RunDir(path) for path in (entry, *inside) if is_run(path)]
    if not found:
        raise UserError(f"{folder}: no run in it; give a run directory, or the id of a Slurm job")
    return found


def is_folder_of_runs(path: Path) -> bool:
    """Whether it is no run itself, and holds runs: a sweep, or the folder of all runs."""
    return path.is_dir() and not is_run(path) and any(entry.is_dir() for entry in path.iterdir())


def is_run(path: Path) -> bool:
    """Whether it is a run directory, of a run that has started or waits in a queue."""
    run = RunDir(path)
    return run.config.is_file() or any(run.jobs.glob("[0-9]*.json"))
