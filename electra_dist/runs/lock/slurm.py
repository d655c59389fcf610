"""Slurm's word: whether it has ended the job that another process cannot outlive."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from electra_dist.runs.lock.holder import Holder

_SECONDS = 20.0
#: States in which Slurm has ended every process of a job. NODE_FAIL is none:
#: the node may live on, out of its reach.
_OVER = frozenset(
    ("CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)


def job_is_over(holder: Holder, environment: Mapping[str, str]) -> bool:
    """Whether Slurm says that it has ended every process of the holder's job,
    the holder among them; `environment` may name the cluster here.
    """
    if holder.job_id is None or not holder.in_job or not re.fullmatch(r"\d+", holder.job_id):
        return False
    # another cluster may have a job of this number
    if holder.cluster is None or holder.cluster != _cluster_here(environment):
        return False
    states = _ask("squeue", "-h", "--states=all", f"--jobs={holder.job_id}", "-o", "%T").split()
    return bool(states) and all(state in _OVER for state in states)


def _cluster_here(environment: Mapping[str, str]) -> str | None:
    if name := environment.get("SLURM_CLUSTER_NAME"):
        return name
    match = re.search(
        r"^ClusterName\s*=\s*(\S+)", _ask("scontrol", "show", "config"), flags=re.MULTILINE
    )
    if match:
        return match[1]
    return None


def _ask(*command: str) -> str:
    """What a command of Slurm prints; empty when it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode == 0:
        return done.stdout
    return ""
