"""Who holds a lease: what stands in its file, and the times that go with it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from electra_dist.parallel import processes

#: How `launch local` hands its lease to rank 0:
#: the rank that names it takes it over without asking.
HANDED_DOWN = "ELECTRA_DIST_LOCK"
TRAINING = "trains this run"
#: Leases are padded to this, so that a pulse overwrites what is there and needs no space.
_LEASE_BYTES = 1024
_LONGEST_SILENCE = 3600.0


@dataclass(frozen=True)
class Timing:
    """Seconds. `silent` is written into the lease: what a holder promises is what others wait for.

    pulse     between two signs of life; network file systems show them up to a minute late
    silent    without a sign after which a holder counts as dead
    dying     for a process of this machine that has been killed to be gone
    brief     for one that holds the lock for a moment only (`launch slurm`, `checkpoint prune`)
    requeue   for the processes of an earlier start of the same Slurm job to be gone
    """

    pulse: float = 10.0
    silent: float = 100.0
    dying: float = 3.0
    brief: float = 300.0
    requeue: float = 600.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as it stands in the file.

    place, ticks     of the process, as `processes` knows them
    purpose          what it does with the run: "trains this run"
    brief            it is given back within moments
    job_id, cluster  of Slurm, or None; `restart` counts the job's requeues
    in_job           Slurm ends the process with the job (a shell of `salloc` on a login node
                     outlives it)
    """

    token: str
    pid: int
    host: str
    place: str
    ticks: int | None
    purpose: str
    brief: bool
    job_id: str | None
    cluster: str | None
    restart: int
    in_job: bool
    since: float
    silent_seconds: float

    def name(self) -> str:
        """`process 4711 on node3 (Slurm job 17)`."""
        if self.job_id:
            job = f" (Slurm job {self.job_id})"
        else:
            job = ""
        return f"process {self.pid} on {self.host}{job}"

    def lives(self) -> bool | None:
        """Whether the process lives; None when that cannot be told from this machine."""
        return processes.is_alive(self.place, self.pid, self.ticks)


def myself(purpose: str, brief: bool, environment: Mapping[str, str], timing: Timing) -> Holder:
    """This process as a holder."""
    return Holder(
        token=secrets.token_hex(8),
        pid=os.getpid(),
        host=socket.gethostname(),
        place=processes.place(),
        ticks=processes.ticks(os.getpid()),
        purpose=purpose,
        brief=brief,
        job_id=environment.get("SLURM_JOB_ID"),
        cluster=environment.get("SLURM_CLUSTER_NAME"),
        restart=_count(environment.get("SLURM_RESTART_COUNT", "")),
        in_job="SLURMD_NODENAME" in environment,
        since=time.time(),
        silent_seconds=timing.silent,
    )


def _count(text: str) -> int:
    if text.isdigit():
        return int(text)
    return 0


def parsed(content: bytes) -> Holder | None:
    """The holder that the content of a lease names, or None where it is none, or not yet."""
    try:
        found = json.loads(content)
        holder = Holder(**{field.name: found[field.name] for field in fields(Holder)})
        silence = float(holder.silent_seconds)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if 0 < silence <= _LONGEST_SILENCE:
        return holder
    return None


def content_of(holder: Holder, beats: int) -> bytes:
    """The content of a lease, the same length whatever `beats` is."""
    return json.dumps(asdict(holder) | {"beats": beats}).encode().ljust(_LEASE_BYTES) + b"\n"
