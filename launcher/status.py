"""`status`, `logs` and `stop`: what a run does, from the queue where there is one and from its run
directory.

Everything here works on a login node without torch, and for a run that was never submitted: there,
and where Slurm is out of reach, the pulse of the training process tells
(`electra_dist.runs.heartbeat`).
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from electra_dist import config as configuration
from electra_dist.errors import ConfigError, UserError
from electra_dist.files.reading import MIB, open_regular
from electra_dist.runs import lock
from electra_dist.runs.checkpoints import health
from electra_dist.runs.checkpoints.memory import saving
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import Life, life
from electra_dist.runs.metrics_log import Row
from electra_dist.runs.progress import read_vitals
from electra_dist.runs.rollbacks import Rollback, rollbacks_of
from launcher.records import Event, JobRecord, events, records, said_in
from launcher.slurm import queue
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
]
_JOB_ID = re.compile(r"^\d+(_\d+)?$")
_POLL_SECONDS = 0.5
#: Bytes of a log that are read at once, and of its end that are looked through for its last lines.
_LOG_PART = 64 * 1024
_LOG_TAIL = 64 * MIB
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
                     running without a job when a process outside of Slurm trains it
    why              why it waits, or why it ended
    restarts         starts after the first one, of the newest launch
    seconds_left     of training, at the speed of the last logged steps; None when it is not known
    time_left        of the job's time slot, as Slurm writes it
    saving_fails     why the newest try to save failed, where it did
    broken_rows      what stands in metrics.jsonl and is no row
    held_by          who holds the lock of the run directory, and since when
    unhealthy        why the newest checkpoint is not healthy; None where it is, or where nobody
                     looked
    last_healthy     step of the newest checkpoint that is
    rollbacks        returns from a divergence, oldest first
    phase            what the ranks are doing, while they run, and how far they are in it
    step_age         seconds since their last step ended, while they run
    sign_age         seconds since anything moved on any rank, while they run
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
    last_checkpoint: int | None = None
    unhealthy: str | None = None
    last_healthy: int | None = None
    rollbacks: tuple[Rollback, ...] = ()
    saving_fails: str | None = None
    broken_rows: int = 0
    held_by: str | None = None
    phase: str | None = None
    step_age: float | None = None
    sign_age: float | None = None
    log: str | None = None


@dataclass(frozen=True)
class StopResult:
    """What `stop` did: jobs told to save and end, waiting jobs taken out of the queue,
    a process told (its number).
    """

    run: str
    told: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    process: int | None = None


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
        if not _is_run(entry):
            inside = sorted(path for path in entry.iterdir() if path.is_dir())
        else:
            inside = []
        found += [RunDir(path) for path in (entry, *inside) if _is_run(path)]
    if not found:
        raise UserError(f"{folder}: no run in it; give a run directory, or the id of a Slurm job")
    return found


def _is_run(path: Path) -> bool:
    return RunDir(path).config.is_file() or bool(records(RunDir(path)))


def status(run: RunDir) -> RunStatus:
    """What a run does now; where Slurm does not answer, what the run directory says of it."""
    launches = records(run)
    facts = _progress(run)
    seen = life(run)
    if not launches:
        return _without_job(run, facts, seen)
    launch = launches[-1]
    jobs, silence = _ask(launch)
    noted = _noted(run, launch, jobs)
    current = _current(jobs)
    if current is None and seen is not None and _is_newer(seen, launch, noted, silence):
        return _without_job(run, facts, seen)
    if current:
        state, why = _live(current, noted)
    else:
        state, why = _ended(run, launch, noted, jobs, silence)
    if current:
        job_id = current.job_id
    elif noted:
        job_id = noted[-1].job_id
    else:
        job_id = launch.job_ids[-1]
    if state in ("finished", "stopped", "cancelled", "failed", "idle"):
        facts["seconds_left"] = None
    if state in ("running", "ending"):
        facts |= _doing(run, seen)
    return RunStatus(
        run=str(run.path),
        state=state,
        why=why,
        job_id=job_id,
        nodes=current.nodes if current else None,
        time_left=current.time_left if current else None,
        starts_at=current.starts_at if current and state == "waiting" else None,
        restarts=max(
            sum(event.kind == "start" for event in noted) - 1,
            *(event.restart for event in noted),
            0,
        ),
        log=_newest_log(run),
        **facts,
    )


def _ask(launch: JobRecord) -> tuple[list[QueuedJob], str | None]:
    """The jobs of a launch that Slurm still knows, and why it does not answer, or None."""
    if not queue.has_slurm():
        return [], "no Slurm on this machine to ask"
    try:
        return queue.queued(launch.job_ids), None
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


def _without_job(run: RunDir, facts: dict[str, Any], seen: Life | None) -> RunStatus:
    """A run that nobody submitted, or that a process outside of the queue has trained since."""
    done = (
        facts["step"] is not None and facts["steps"] is not None and facts["step"] >= facts["steps"]
    )
    if seen:
        state, why = _of_process(seen)
    else:
        state, why = ("idle", None)
    if done and state != "running":
        state = "finished"
        why = None
    if state in ("finished", "failed"):
        facts["seconds_left"] = None
    if state == "running":
        facts |= _doing(run, seen)
    if seen and state == "running":
        nodes = seen.process.host
    else:
        nodes = None
    return RunStatus(str(run.path), state, why, nodes=nodes, log=_newest_log(run), **facts)


def _doing(run: RunDir, seen: Life | None) -> dict[str, Any]:
    """What the ranks are doing, as the watchdog of the first one has noted it;
    nothing of an earlier process.
    """
    vitals = read_vitals(run)
    if vitals is None or seen is None or vitals.pid != seen.process.pid:
        return {}
    if vitals.detail:
        phase = f"{vitals.phase} ({vitals.detail})"
    else:
        phase = vitals.phase
    return {"phase": phase, "step_age": vitals.step_age, "sign_age": vitals.sign_age}


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
        if noted:
            last = noted[-1]
        else:
            last = None
        return "running", f"{last.kind}: {last.detail}" if last and last.kind in (
            "preflight",
            "signal",
        ) else None
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
    run: RunDir, launch: JobRecord, noted: list[Event], jobs: list[QueuedJob], silence: str | None
) -> tuple[State, str | None]:
    """No job of the launch is active: what its script noted last,
    else what the queue or accounting still know.
    """
    last = next((event for event in reversed(noted) if event.kind != "skipped"), None)
    if last and last.kind in _BY_EVENT:
        return _BY_EVENT[last.kind], last.detail
    if silence:
        return "idle", silence + (f"; last noted: {last.kind}, {last.detail}" if last else "")
    ended: str | None
    if jobs:
        ended = jobs[-1].state
    else:
        ended = queue.accounted(launch.job_ids[-1])
    if ended and ended.startswith("CANCELLED"):
        return "cancelled", ended
    if last:
        since = f"; last noted: {last.kind}, {last.detail}"
    else:
        since = ""
    return "unfinished", (ended or "its job has left the queue") + since + _no_room(run)


def _no_room(run: RunDir) -> str:
    """That the file system of the run is full, which is why nothing more was noted;
    empty when it is not.
    """
    disk = shutil.disk_usage(run.path)
    if disk.free < MIB:
        return f"; no space left there now ({disk.free:,} bytes free)"
    return ""


def _progress(run: RunDir) -> dict[str, Any]:
    """Step, losses, speed and newest checkpoint, from the run directory."""
    steps = _steps(run)
    reader = run.read_metrics()
    last = Row()
    for row in reader:
        if "loss/generator" in row:
            last = row
    checkpoints = run.complete_checkpoints()
    step = last.get("step", checkpoints[-1] if checkpoints else None)
    pace = last.get("speed/step_seconds")
    return {
        "step": step,
        "steps": steps,
        "generator_loss": last.get("loss/generator"),
        "discriminator_loss": last.get("loss/discriminator"),
        "real_tokens_per_s": last.get("speed/real_tokens_per_s"),
        "seconds_left": (steps - step) * pace
        if pace and steps is not None and step is not None
        else None,
        "last_checkpoint": checkpoints[-1] if checkpoints else None,
        **asdict(health(run)),
        "rollbacks": tuple(rollbacks_of(run)),
        "saving_fails": _saving_fails(run),
        "broken_rows": reader.broken,
        "held_by": _held_by(run),
    }


def _saving_fails(run: RunDir) -> str | None:
    remembered = saving(run)
    if remembered is None or remembered.problem is None:
        return None
    if remembered.failures > 1:
        tries = f", {remembered.failures} tries in a row"
    else:
        tries = ""
    return f"step {remembered.problem_step}: {remembered.problem}{tries}"


def _held_by(run: RunDir) -> str | None:
    """Who holds the lock; nobody when that process is known to be dead."""
    found = lock.holding(run)
    if found is None or found.alive is False:
        return None
    since, last = (
        f"{datetime.fromtimestamp(t).astimezone():%Y-%m-%d %H:%M:%S %z}"
        for t in (found.holder.since, found.last_sign)
    )
    if found.alive:
        sign = ""
    else:
        sign = f", last sign of life {last}"
    return f"{found.holder.name()}, which {found.holder.purpose}, since {since}{sign}"


def _steps(run: RunDir) -> int | None:
    if run.jobs.is_dir():
        launched = sorted(run.jobs.glob("[0-9]*.yaml"))
    else:
        launched = []
    for path in [*reversed(launched), run.config]:
        if path.is_file():
            try:
                return configuration.load(path).train.steps
            except (
                ConfigError
            ):  # written by another version: the rest of the status is worth having
                return None
    return None


# --- logs -----------------------------------------------------------------------------------------


def log_file(run: RunDir, rank: int | None = 0) -> Path:
    """The newest log of a rank, or of the batch script when `rank` is None;
    raises `UserError` when there is none.
    """
    pattern = re.compile(
        r"job-[0-9_]+\.log" if rank is None else rf"(job-[0-9_]+-)?rank-{rank}\.log"
    )
    if rank is None:
        folders = [run.logs, run.path.parent / "logs"]
    else:
        folders = [run.logs]
    for folder in folders:  # the script of a sweep logs beside its runs
        if folder.is_dir():
            found = [path for path in folder.glob("*.log") if pattern.fullmatch(path.name)]
        else:
            found = []
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    if rank is None:
        what = "no log of the job script"
    else:
        what = f"no log of rank {rank}"
    if run.logs.is_dir():
        there = sorted(path.name for path in run.logs.glob("*.log"))
    else:
        there = []
    if there:
        hint = f"there are: {', '.join(there[:8])}"
    else:
        hint = "has the run started? see `electra-dist status`"
    if rank and "rank-0.log" in there and not run.jobs.is_dir():
        hint += (
            ". Ranks that were started by hand print where torchrun or srun puts it; rank 0"
            " alone keeps a log here"
        )
    raise UserError(f"{run.logs}: {what}; {hint}")


def _newest_log(run: RunDir) -> str | None:
    try:
        return str(log_file(run))
    except UserError:
        return None


def read_log(path: Path, lines: int | None = None, follow: bool = False) -> Iterator[str]:
    """The text of a log, its last `lines` or all of it, in parts;
    with `follow`, what is appended, without an end.
    """
    raw = open_regular(path, follow=True)
    if lines is not None:
        raw.seek(_start_of_last(raw, lines))
    with io.TextIOWrapper(raw, encoding="utf-8", errors="replace") as file:
        while True:
            while text := file.read(_LOG_PART):
                yield text
            if not follow:
                return
            time.sleep(_POLL_SECONDS)


def _start_of_last(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` of a file start; at most `_LOG_TAIL` bytes before its end."""
    end = file.seek(0, os.SEEK_END)
    start = end
    while lines and start > max(0, end - _LOG_TAIL):
        size = min(_LOG_PART, start)
        start = file.seek(start - size)
        part = file.read(size)
        if start + size == end and part.endswith(b"\n"):
            at = len(part) - 1
        else:
            at = len(part)
        while (at := part.rfind(b"\n", 0, at)) >= 0:
            lines -= 1
            if not lines:
                return start + at + 1
    return start


# --- stop -----------------------------------------------------------------------------------------


def stop(run: RunDir) -> StopResult:
    """Have the jobs of a run save and end for good, and take the waiting ones out of the queue.

    Returns at once; the ranks end at their next step. A run outside of Slurm is told where its
    first rank lives on this machine. Raises `UserError` when nobody is there to be told.
    """
    seen = life(run)
    if seen and seen.is_here and (seen.process.job_id is None or not queue.has_slurm()):
        os.kill(
            seen.process.pid, signal.SIGUSR1
        )  # the ranks agree at the next step, whoever of them was told
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
