"""What a run does, from the queue where there is one and from its run directory.

Comes in: a run directory. Goes out: a `RunStatus`. It works on a login node without torch, and for
a run that was never submitted: there, and where Slurm is out of reach, the pulse of the training
process tells (`electra_dist.runs.heartbeat`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from electra_dist.errors import UserError
from electra_dist.files.reading import MIB
from electra_dist.health import Finding
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import Life, life
from electra_dist.runs.heldout.best import BestSaved
from electra_dist.runs.rollbacks import Rollback
from launcher.held_out import Best
from launcher.logged import Logged, read_logged
from launcher.logs import newest_log
from launcher.recorded import activity, recorded
from launcher.records import Event, JobRecord, events, records, said_in
from launcher.slurm import queue
from launcher.slurm.asking import Asking
from launcher.slurm.queue import QueuedJob

State = Literal[
    "waiting",
    "running",
    "ending",
    "finished",
    "stopped",
    "cancelled",
    "failed",
    "unfinished",
    "idle",
    "damaged",
    "gone",
]
_BY_EVENT: dict[str, State] = {
    "finished": "finished",
    "stopped": "stopped",
    "cancelled": "cancelled",
    "failed": "failed",
    "unfinished": "unfinished",
}


@dataclass(frozen=True)
class RunStatus:
    """What a run does now.

    state            finished, stopped (by `stop`), cancelled (by scancel), failed, unfinished (may
                     be started
                     again), idle (nobody is known to train it), or what its job in the queue does;
                     running without a job when a process outside of Slurm trains it; of several
                     runs also damaged (cannot be read), or gone (it was there a moment ago)
    why              why it waits, or why it ended
    restarts         starts after the first one, of the newest launch
    seconds_left     of training, at the speed of the last logged steps; None when it is not known
    time_left        of the job's time slot, as Slurm writes it
    best_held_out    the lowest held-out loss
    saving_fails     why the newest try to save failed, where it did
    broken_rows      what stands in metrics.jsonl and is no row
    held_by          who holds the lock of the run directory, and since when
    unhealthy        why the newest checkpoint is not healthy; None where it is, or where nobody
                     looked
    last_healthy     step of the newest checkpoint that is
    best             the best checkpoint (`electra_dist.runs.heldout.best`); None where no saved
                     step was validated
    stopped_early    how it has ended before its last step, where patience was at an end
    rollbacks        returns from a divergence, oldest first
    phase            what the ranks are doing, while they run, and how far they are in it
    step_age         seconds since their last step ended, while they run
    sign_age         seconds since anything moved on any rank, while they run
    findings         of the rules of health, those that stand; None where nobody judges
    """

    run: str
    state: State
    why: str | None = None
    job_id: str | None = None
    nodes: str | None = None
    time_left: str | None = None
    starts_at: str | None = None
    restarts: int = 0
    step: int | None = None
    steps: int | None = None
    generator_loss: float | None = None
    discriminator_loss: float | None = None
    real_tokens_per_s: float | None = None
    seconds_left: float | None = None
    best_held_out: Best | None = None
    last_checkpoint: int | None = None
    unhealthy: str | None = None
    last_healthy: int | None = None
    best: BestSaved | None = None
    stopped_early: str | None = None
    rollbacks: tuple[Rollback, ...] = ()
    saving_fails: str | None = None
    broken_rows: int = 0
    held_by: str | None = None
    phase: str | None = None
    step_age: float | None = None
    sign_age: float | None = None
    findings: tuple[Finding, ...] | None = None
    log: str | None = None


def status(run: RunDir, logged: Logged | None = None, asking: Asking | None = None) -> RunStatus:
    """What a run does now; where Slurm does not answer, what the run directory says of it.

    `logged` is what stands in its metrics, where the caller follows them; `asking` asks Slurm.
    """
    if logged is None:
        logged = read_logged(run)
    if asking is None:
        asking = Asking()
    launches = records(run)
    found = recorded(run, logged)
    seen = life(run)
    if not launches:
        return _without_job(run, found, seen)
    launch = launches[-1]
    jobs, silence = _ask(launch, asking)
    noted = _noted(run, launch, jobs)
    current = _current(jobs)
    if current is None and seen is not None and _is_newer(seen, launch, noted, silence):
        return _without_job(run, found, seen)
    if current:
        state, why = _live(current, noted)
    else:
        state, why = _ended(run, launch, noted, jobs, silence, asking)
    if state == "finished" and found.get("stopped_early"):
        why = found["stopped_early"]
    if current:
        job_id = current.job_id
    elif noted:
        job_id = noted[-1].job_id
    else:
        job_id = launch.job_ids[-1]
    if state in ("finished", "stopped", "cancelled", "failed", "idle"):
        found["seconds_left"] = None
    if state in ("running", "ending"):
        found |= activity(run, seen)
    return RunStatus(
        run=str(run.path),
        state=state,
        why=why,
        job_id=job_id,
        nodes=current.nodes if current else None,
        time_left=current.time_left if current else None,
        starts_at=current.starts_at if current and state == "waiting" else None,
        restarts=_restarts(noted),
        log=newest_log(run),
        **found,
    )


def _restarts(noted: list[Event]) -> int:
    """Starts after the first one: as many as were noted, or as Slurm has counted."""
    starts = sum(1 for event in noted if event.kind == "start")
    return max(starts - 1, *(event.restart for event in noted), 0)


def _ask(launch: JobRecord, asking: Asking) -> tuple[list[QueuedJob], str | None]:
    """The jobs of a launch that Slurm still knows, and why it does not answer, or None."""
    if not queue.has_slurm():
        return [], "no Slurm on this machine to ask"
    try:
        return asking.queued(launch.job_ids), None
    except UserError as error:
        return [], f"Slurm does not answer ({error})"


def _noted(run: RunDir, launch: JobRecord, jobs: list[QueuedJob]) -> list[Event]:
    """What the job scripts noted, in the run directory or,
    where they could not write there, in Slurm's comments.
    """
    said = [event for job in jobs if (event := said_in(job.job_id, job.comment))]
    return sorted([*events(run, launch.number), *said], key=lambda event: _seconds(event.time))


def _seconds(time_of_event: str) -> float:
    try:
        return datetime.fromisoformat(time_of_event).timestamp()
    except ValueError:  # a damaged line
        return 0.0


def _without_job(run: RunDir, found: dict[str, Any], seen: Life | None) -> RunStatus:
    """A run that nobody submitted, or that a process outside of the queue has trained since."""
    early = found.get("stopped_early")
    done = early is not None or (
        found["step"] is not None and found["steps"] is not None and found["step"] >= found["steps"]
    )
    if seen:
        state, why = _of_process(seen)
    else:
        state, why = ("idle", None)
    if done and state != "running":
        state = "finished"
        why = early
    if state in ("finished", "failed"):
        found["seconds_left"] = None
    if state == "running":
        found |= activity(run, seen)
    if seen and state == "running":
        nodes = seen.process.host
    else:
        nodes = None
    return RunStatus(str(run.path), state, why, nodes=nodes, log=newest_log(run), **found)


def _of_process(seen: Life) -> tuple[State, str | None]:
    process = seen.process
    last = f"{datetime.fromtimestamp(seen.last_sign).astimezone():%Y-%m-%d %H:%M:%S %z}"
    who = f"process {process.pid} on {process.host}"
    if seen.running:
        return "running", f"{who}, {process.ranks} ranks"
    if process.ending is None:
        return (
            "failed",
            f"{who} is gone without a word (killed, out of memory?), last sign of life {last}",
        )
    if process.ending in ("failed", "hung"):
        return "failed", f"{who}, {last}: {process.detail}"
    if process.ending == "finished":
        return "finished", None
    return "unfinished", ", ".join(part for part in ("interrupted", process.detail, last) if part)


def _is_newer(seen: Life, launch: JobRecord, noted: list[Event], silence: str | None) -> bool:
    """Whether the process tells more than the jobs do:
    it is none of them, or Slurm is silent; and it came last.
    """
    if seen.process.job_id is not None and not (seen.running and silence):
        return False
    if noted:
        last = noted[-1].time
    else:
        last = launch.submitted
    return seen.running or seen.last_sign > datetime.fromisoformat(last).timestamp()


def _current(jobs: list[QueuedJob]) -> QueuedJob | None:
    """The job that matters: one that runs, else the first of a chain that waits."""
    active = [job for job in jobs if job.is_active]
    order = {"RUNNING": 0, "COMPLETING": 1}
    return min(active, key=lambda job: order.get(job.state, 2), default=None)


def _live(job: QueuedJob, noted: list[Event]) -> tuple[State, str | None]:
    if job.state == "RUNNING":
        if noted and noted[-1].kind in ("preflight", "signal"):
            return "running", f"{noted[-1].kind}: {noted[-1].detail}"
        return "running", None
    if job.state == "COMPLETING":
        return "ending", None
    if job.state == "PENDING":
        waits = job.reason
    else:
        waits = f"{job.state}: {job.reason}"
    back = next((event for event in reversed(noted) if event.kind not in ("exclude", "keep")), None)
    if back and back.kind == "requeue":
        put_back = f"; {back.kind}: {back.detail}"
    else:
        put_back = ""
    return "waiting", f"{waits or 'in the queue'}{put_back}"


def _ended(
    run: RunDir,
    launch: JobRecord,
    noted: list[Event],
    jobs: list[QueuedJob],
    silence: str | None,
    asking: Asking,
) -> tuple[State, str | None]:
    """No job of the launch is active: what its script noted last,
    else what the queue or accounting still know.
    """
    last = next((event for event in reversed(noted) if event.kind != "skipped"), None)
    if last and last.kind in _BY_EVENT:
        return _BY_EVENT[last.kind], last.detail
    since = ""
    if last:
        since = f"; last noted: {last.kind}, {last.detail}"
    if silence:
        return "idle", silence + since
    ended: str | None
    if jobs:
        ended = jobs[-1].state
    else:
        ended = asking.accounted(launch.job_ids[-1])
    if ended and ended.startswith("CANCELLED"):
        return "cancelled", ended
    return "unfinished", (ended or "its job has left the queue") + since + _no_room(run)


def _no_room(run: RunDir) -> str:
    """That the file system of the run is full, which is why nothing more was noted;
    empty when it is not.
    """
    disk = shutil.disk_usage(run.path)
    if disk.free < MIB:
        return f"; no space left there now ({disk.free:,} bytes free)"
    return ""
