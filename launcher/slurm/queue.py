"""What Slurm says: thin, typed readers of sinfo, squeue, scontrol and sacct, and the three commands
that act.

Every failure of a Slurm command becomes a `UserError` with Slurm's own words.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import UserError
from launcher.slurm.environment import for_commands

_SECONDS = 60.0
#: States that a job does not leave any more.
_ENDED = frozenset(
    (
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    )
)


@dataclass(frozen=True)
class Partition:
    """One partition: its largest node, how many nodes, the longest job."""

    name: str
    nodes: int
    cores: int
    memory_mb: int
    gpus: int
    gpu_type: str | None
    time_limit: str
    is_default: bool


@dataclass(frozen=True)
class QueuedJob:
    """A job that Slurm still knows: `state` in Slurm's words, times and counts as text of Slurm.

    comment   free text, in which a job script says what it cannot write
    """

    job_id: str
    state: str
    reason: str | None
    nodes: str | None
    time_left: str | None
    starts_at: str | None
    comment: str | None = None

    @property
    def is_active(self) -> bool:
        """Waiting, running or on its way out; not ended."""
        return self.state.split()[0] not in _ENDED


def has_slurm() -> bool:
    """Whether Slurm's commands are on this machine."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def call(*command: str, environment: Mapping[str, str] = os.environ) -> str:
    """Standard output of a Slurm command; raises `UserError` when it is missing, fails or hangs.

    It gets `environment` without what Slurm would read as options.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=for_commands(environment),
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{command[0]}: no Slurm on this machine; log in to the cluster's login node, or use"
            " `electra-dist launch local`, or `dry_run` to see the job script"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{command[0]}: Slurm does not answer after {_SECONDS:.0f} s; try again later"
        ) from error
    if done.returncode:
        message = " ".join((done.stderr or done.stdout).split())
        if "configuration source" in message:
            raise UserError(
                f"{command[0]}: Slurm is installed here but knows no cluster; log in to the"
                " cluster's login node, or use `electra-dist launch local`"
            )
        raise UserError(f"{command[0]}: {message or f'failed with exit code {done.returncode}'}")
    return done.stdout


def partitions() -> list[Partition]:
    """All partitions, from `sinfo`; different nodes of one are merged, the largest wins."""
    merged: dict[str, Partition] = {}
    for line in call("sinfo", "-h", "-o", "%P|%D|%c|%m|%G|%l").splitlines():
        label, nodes, cores, memory, gres, limit = line.split("|")
        name = label.removesuffix("*")
        gpus, kind = _gpus(gres)
        here = Partition(
            name,
            int(nodes),
            _number(cores),
            _number(memory),
            gpus,
            kind,
            limit,
            is_default=label.endswith("*"),
        )
        before = merged.get(name)
        if before is None:
            merged[name] = here
        else:
            merged[name] = _larger(before, here)
    return list(merged.values())


def _larger(one: Partition, other: Partition) -> Partition:
    return Partition(
        one.name,
        one.nodes + other.nodes,
        max(one.cores, other.cores),
        max(one.memory_mb, other.memory_mb),
        max(one.gpus, other.gpus),
        one.gpu_type if one.gpus >= other.gpus else other.gpu_type,
        one.time_limit,
        one.is_default or other.is_default,
    )


def _number(text: str) -> int:
    """`16+` is what sinfo prints for nodes of different sizes."""
    match = re.match(r"\d+", text)
    if match:
        return int(match[0])
    return 0


def _gpus(gres: str) -> tuple[int, str | None]:
    """`gpu:a100:8(S:0-1),shard:16` gives (8, "a100"); several kinds of GPU are added up."""
    found = re.findall(r"\bgpu:(?:([A-Za-z][^:,(]*):)?(\d+)", gres)
    return sum(int(count) for _, count in found), next((kind for kind, _ in found if kind), None)


def queued(job_ids: Sequence[str]) -> list[QueuedJob]:
    """Those of `job_ids` that `squeue` still lists, in its order."""
    if not job_ids:
        return []
    form = "%i|%T|%r|%N|%L|%S|%k"
    try:
        listed = call(
            "squeue", "-h", "-r", "--states=all", f"--jobs={','.join(job_ids)}", "-o", form
        )
    except UserError as error:
        if "invalid job id" in str(error).lower():  # all of them have left the queue
            return []
        raise
    jobs = []
    for line in listed.splitlines():
        job_id, state, *rest = (_known(part) for part in line.split("|", 6))
        jobs.append(QueuedJob(job_id or "", state or "UNKNOWN", *rest))
    return jobs


def _known(text: str) -> str | None:
    if text.strip() in ("", "N/A", "None", "(null)", "n/a"):
        return None
    return text.strip()


def accounted(job_id: str) -> str | None:
    """The state of an ended job by `sacct`;
    None where there is no accounting or it does not know the job.
    """
    if shutil.which("sacct") is None:
        return None
    try:
        listed = call("sacct", "-n", "-X", "-P", "-j", job_id, "-o", "State")
    except UserError:
        return None  # a site without accounting: sacct is there and fails
    lines = listed.split("\n")
    return lines[0].strip() or None


def run_dir_of(job_id: str) -> Path | None:
    """The run (or sweep) directory of a job of ours, from the path of its script;
    None when Slurm has forgotten it.
    """
    try:
        shown = call("scontrol", "show", "job", job_id, "--oneliner")
    except UserError:
        return None
    match = re.search(r" Command=(.*/jobs/\d+\.sbatch)(?: |$)", shown, flags=re.MULTILINE)
    if match:
        return Path(match[1]).parent.parent
    return None


def submit(script: Path, environment: Mapping[str, str], options: Sequence[str] = ()) -> str:
    """Submit a script, whose job gets `environment` and nothing else of this process;
    returns the job id.
    """
    answer = call(
        "sbatch", "--parsable", "--export=ALL", *options, str(script), environment=environment
    )
    return answer.strip().split("\n")[-1].split(";")[0]


def signal_tasks(job_id: str, name: str) -> None:
    """Signal every task of a running job, not its batch script."""
    call("scancel", f"--signal={name}", job_id)


def cancel(job_ids: Sequence[str]) -> None:
    """End jobs for good; those that have ended already are no error."""
    if job_ids:
        call("scancel", *job_ids)
