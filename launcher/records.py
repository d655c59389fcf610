"""What a launch leaves in the run directory, so that `status`, `logs` and `stop` find its jobs
again.

jobs/NNN.sbatch  the script                     jobs/NNN.yaml    the configuration that it trains
jobs/NNN.json    job ids, cluster, time         jobs/NNN.events  what the script noted: start,
                 requeue, ...
jobs/NNN.counts  crashes since the newest checkpoint
jobs/NNN.reserve space for the last words on a full disk
jobs/NNN.stop    asked to end                   jobs/NNN.over    ended for good
code/NNN/        the code as it was             logs/job-ID.log, logs/job-ID-rank-R.log
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from electra_dist.errors import UserError
from electra_dist.files.reading import MIB, read_bounded, read_json
from electra_dist.files.writing import write_json
from electra_dist.runs.directory import RunDir
from electra_dist.runs.opening.revision import note_revision

_PACKAGES = ("electra_dist", "launcher", "data_tools")
_COMMENT = re.compile(r"^electra-dist: (\S+) (\d+) ([a-z]+): (.*)$")
_EVENTS_LIMIT = 16 * MIB
_NUMBER = re.compile(r"^(\d{3,})\.")


@dataclass(frozen=True)
class JobRecord:
    """One launch of a run. `job_ids` are several for a chain; `NNN` of the files is `number`."""

    number: str
    job_ids: tuple[str, ...]
    cluster: str
    nodes: tuple[int, int]
    ranks_per_node: int
    time_limit: str
    submitted: str

    def save(self, run: RunDir) -> None:
        write_json(run.jobs / f"{self.number}.json", asdict(self))


@dataclass(frozen=True)
class Event:
    """One line that a job script noted."""

    time: str
    job_id: str
    restart: int
    kind: str
    detail: str


def next_number(run_dirs: Iterable[Path]) -> str:
    """The first number of a launch that is free in all these run directories."""
    taken = [0]
    for run_dir in run_dirs:
        jobs = run_dir / "jobs"
        if jobs.is_dir():
            taken += [
                int(match[1]) for entry in jobs.iterdir() if (match := _NUMBER.match(entry.name))
            ]
    return f"{max(taken) + 1:03d}"


def records(run: RunDir) -> list[JobRecord]:
    """Every launch of a run, oldest first; raises `UserError` when one cannot be read."""
    found = []
    for file in sorted(run.jobs.glob("[0-9]*.json")) if run.jobs.is_dir() else []:
        found.append(_read_record(file))
    return found


def _read_record(file: Path) -> JobRecord:
    try:
        content = read_json(file, MIB)
        nodes = [int(number) for number in content["nodes"]]
        texts = {
            name: str(content[name]) for name in ("number", "cluster", "time_limit", "submitted")
        }
        return JobRecord(
            job_ids=tuple(str(job_id) for job_id in content["job_ids"]),
            nodes=(nodes[0], nodes[1]),
            ranks_per_node=int(content["ranks_per_node"]),
            **texts,
        )
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(
            f"{file}: cannot be read as what `launch slurm` noted of a job ({type(error).__name__}:"
            f" {error}); move it away to see the rest"
        ) from error


def events(run: RunDir, number: str) -> list[Event]:
    """What the jobs of one launch noted, oldest first; a line that is being written is left out."""
    try:
        content = read_bounded(run.jobs / f"{number}.events", _EVENTS_LIMIT)
    except FileNotFoundError:
        return []
    found = []
    for line in content.decode("utf-8", errors="replace").splitlines():
        parts = line.split("\t", 4)
        if len(parts) == 5 and parts[2].isdigit():
            found.append(Event(parts[0], parts[1], int(parts[2]), parts[3], parts[4]))
    return found


def said_in(job_id: str, comment: str | None) -> Event | None:
    """The event in the comment of a job, where its script puts what it cannot write;
    None for any other comment.
    """
    match = _COMMENT.match(comment or "")
    if match:
        return Event(match[1], job_id, int(match[2]), match[3], match[4])
    return None


def snapshot_code(target: Path) -> None:
    """Copy the packages of this program to `target`, without caches, and note their commit;
    a requeued job runs the code it was sent with.
    """
    root = Path(__file__).resolve().parents[1]
    for package in _PACKAGES:
        shutil.copytree(
            root / package,
            target / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"),
            dirs_exist_ok=True,
        )
    note_revision(target)
