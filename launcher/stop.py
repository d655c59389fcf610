"""Ending a run for good: its jobs save and end, and those that wait leave the queue.

Comes in: a run directory. Goes out: a `StopResult`, at once; the ranks end at their next step.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import life
from launcher.records import records
from launcher.slurm import queue


@dataclass(frozen=True)
class StopResult:
    """What `stop` did: jobs told to save and end, waiting jobs taken out of the queue,
    a process told (its number).
    """

    run: str
    told: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    process: int | None = None


def stop(run: RunDir) -> StopResult:
    """Have the jobs of a run save and end for good, and take the waiting ones out of the queue.

    Returns at once; the ranks end at their next step. A run outside of Slurm is told where its
    first rank lives on this machine. Raises `UserError` when nobody is there to be told.
    """
    seen = life(run)
    if seen and seen.is_here and (seen.process.job_id is None or not queue.has_slurm()):
        # the ranks agree at the next step, whoever of them was told
        os.kill(seen.process.pid, signal.SIGUSR1)
        return StopResult(str(run.path), process=seen.process.pid)
    active = []
    for launch in records(run):
        jobs = [job for job in queue.queued(launch.job_ids) if job.is_active]
        if jobs:
            (
                run.jobs / f"{launch.number}.stop"
            ).touch()  # before the signal: the script looks when the ranks end
            active += jobs
    if not active:
        raise UserError(
            f"{run.path}: no job of this run is in the queue and no process on this machine trains"
            f" it; `electra-dist status {run.path}` says how it ended. A run of `launch local` or"
            " `train` is stopped on its own machine"
        )
    waiting = tuple(job.job_id for job in active if job.state not in ("RUNNING", "COMPLETING"))
    running = tuple(job.job_id for job in active if job.state == "RUNNING")
    queue.cancel(waiting)
    for job_id in running:
        queue.signal_tasks(job_id, "USR1")
    return StopResult(str(run.path), running, waiting)
