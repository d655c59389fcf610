"""Who asks Slurm about jobs: at once, or for many runs together and only now and then.

Comes in: ids of jobs. Goes out: what the queue and the accounting say. A view that is drawn every
second, of many runs, asks as seldom as a patient user does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from electra_dist.errors import UserError
from launcher.slurm import queue
from launcher.slurm.queue import QueuedJob

#: Between two questions of a view.
ASK_SECONDS = 15.0


class Asking:
    """Asks at once, each time."""

    def queued(self, job_ids: Sequence[str]) -> list[QueuedJob]:
        """Those of `job_ids` that Slurm still lists; raises `UserError` when it does not answer."""
        return queue.queued(job_ids)

    def accounted(self, job_id: str) -> str | None:
        """The state of an ended job, or None where it is not known."""
        return queue.accounted(job_id)


class SeldomAsking(Asking):
    """Asks `squeue` about all expected jobs together, and `sacct` about one job, at most every
    `ASK_SECONDS`; in between it gives what they said last.
    """

    def __init__(self) -> None:
        self._expected: frozenset[str] = frozenset()
        self._asked: frozenset[str] = frozenset()
        self._ask_at = 0.0
        self._account_at = 0.0
        self._jobs: list[QueuedJob] = []
        self._silence: UserError | None = None
        self._ended: dict[str, str] = {}

    def expect(self, job_ids: Iterable[str]) -> None:
        """The jobs that `queued` may be asked about from now on."""
        self._expected = frozenset(job_ids)

    def queued(self, job_ids: Sequence[str]) -> list[QueuedJob]:
        """Raises `UserError` too where a job has not been asked about yet."""
        self._ask_if_due()
        if self._silence is not None:
            raise self._silence
        if not self._asked.issuperset(job_ids):
            left = max(self._ask_at - time.monotonic(), 0.0)
            raise UserError(f"it is asked about this job in {left:.0f} s")
        return [job for job in self._jobs if _is_of(job, job_ids)]

    def _ask_if_due(self) -> None:
        now = time.monotonic()
        if now < self._ask_at:
            return
        self._silence = None
        try:
            self._jobs = queue.queued(sorted(self._expected))
        except UserError as error:
            self._silence = error
        self._asked = self._expected
        self._ask_at = time.monotonic() + ASK_SECONDS

    def accounted(self, job_id: str) -> str | None:
        """None too where it is not yet time to ask; what a job ended with does not change."""
        now = time.monotonic()
        if job_id not in self._ended and now >= self._account_at:
            found = queue.accounted(job_id)
            self._account_at = time.monotonic() + ASK_SECONDS
            if found is not None:
                self._ended[job_id] = found
        return self._ended.get(job_id)


def _is_of(job: QueuedJob, job_ids: Sequence[str]) -> bool:
    """Whether it is one of these, or a task of an array that is."""
    return job.job_id in job_ids or job.job_id.partition("_")[0] in job_ids
