"""What is known of the watched runs at one moment, gathered from their folders and from Slurm.

Comes in: what a user names: runs, jobs, folders of runs. Goes out: one `RunView` for each run, as
often as `look` is called. Metrics are read on from where they were. The rest of a run directory is
looked at more seldom the longer that takes, and Slurm every quarter of a minute at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from launcher.find import all_runs, find_run, is_folder_of_runs
from launcher.live.curve import Point
from launcher.live.following import Followed
from launcher.logged import Logged
from launcher.logs import log_file, read_log
from launcher.records import records
from launcher.slurm.asking import ASK_SECONDS, SeldomAsking
from launcher.status import RunStatus, status

#: Least seconds between two looks at the status of a run, and how many times as long as a look
#: took is waited before the next one.
_STATUS_SECONDS = 2.0
_PATIENCE = 10.0
#: Characters of a line of a log that are kept.
_LOG_WIDTH = 1000


@dataclass(frozen=True)
class RunView:
    """One run at one moment.

    logged    what its metrics tell
    curves    by the name of the metric
    behind    bytes of the metrics that are still to be read
    log       the last lines of the newest log of rank 0
    """

    status: RunStatus
    logged: Logged
    curves: dict[str, tuple[Point, ...]]
    behind: int
    log: tuple[str, ...]


class _Watched:
    """One run, and what is remembered of it between two looks."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._followed = Followed(run)
        self._status = RunStatus(str(run.path), "idle")
        self._status_at = 0.0

    @property
    def is_behind(self) -> bool:
        return self._followed.behind > 0

    def look(self, asking: SeldomAsking, log_lines: int) -> RunView:
        followed = self._followed
        was_behind = self.is_behind
        try:
            followed.read()
            if was_behind and not self.is_behind:
                self._status_at = 0.0  # the newest rows are there only now
            self._look_at_status(asking)
        except (UserError, OSError, ValueError) as error:
            self._status = RunStatus(str(self.run.path), "damaged", str(error))
        log = tuple(self._log(log_lines))
        return RunView(self._status, followed.logged, followed.points(), followed.behind, log)

    def _look_at_status(self, asking: SeldomAsking) -> None:
        began = time.monotonic()
        if began < self._status_at:
            return
        if self.run.path.is_dir():
            self._status = status(self.run, self._followed.logged, asking)
        else:
            self._status = RunStatus(str(self.run.path), "gone", "its folder is not there any more")
        now = time.monotonic()
        self._status_at = now + max(_STATUS_SECONDS, _PATIENCE * (now - began))

    def _log(self, lines: int) -> Iterator[str]:
        """The last lines; none where no rank has a log that can be read."""
        if not lines or self._status.log is None:
            return
        try:
            text = "".join(read_log(log_file(self.run), lines))
        except (UserError, OSError):
            return
        for line in text.splitlines()[-lines:]:
            yield line[:_LOG_WIDTH]


class Gatherer:
    """Looks at everything that `targets` name."""

    def __init__(self, targets: Sequence[str]) -> None:
        """Raises `UserError` where one of them is no run, no job and no folder of runs."""
        self._folders = [Path(target) for target in targets if is_folder_of_runs(Path(target))]
        self._asking = SeldomAsking()
        self._watched: dict[Path, _Watched] = {}
        for target in targets:
            self._add(_runs_of(target))
        self._search_at = 0.0

    @property
    def behind(self) -> bool:
        """Whether metrics are still to be read."""
        return any(watched.is_behind for watched in self._watched.values())

    def look(self, log_lines: int) -> tuple[RunView, ...]:
        """One view of each run, in the order of the targets; a run alone has `log_lines` of its
        log.
        """
        now = time.monotonic()
        if now >= self._search_at:
            self._search_at = now + ASK_SECONDS
            self._search()
        if len(self._watched) > 1:
            log_lines = 0
        return tuple(one.look(self._asking, log_lines) for one in self._watched.values())

    def _search(self) -> None:
        """Take in the runs that are new in the folders, and the jobs that were started since."""
        for folder in self._folders:
            try:
                self._add(all_runs(folder))
            except (UserError, OSError):
                continue  # it was there at the start: its runs are shown as gone
        self._asking.expect(
            job_id for watched in self._watched.values() for job_id in _jobs_of(watched.run)
        )

    def _add(self, runs: Sequence[RunDir]) -> None:
        for run in runs:
            if run.path not in self._watched:
                self._watched[run.path] = _Watched(run)


def _runs_of(target: str) -> list[RunDir]:
    if is_folder_of_runs(Path(target)):
        return all_runs(Path(target))
    return [find_run(target)]


def _jobs_of(run: RunDir) -> tuple[str, ...]:
    """The jobs of the newest launch."""
    try:
        launches = records(run)
    except (UserError, OSError):
        return ()  # its view says what is wrong with it
    if launches:
        return launches[-1].job_ids
    return ()
