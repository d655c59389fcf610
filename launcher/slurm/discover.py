"""`launch slurm --new-profile`: a cluster profile from what `sinfo` reports and a few questions.

The questions are asked through a function, so that a terminal, a test or a script may answer them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pydantic

from electra_dist.errors import ConfigError, UserError, nearest
from electra_dist.plan import DEVICES, find_device
from launcher.slurm.clusters import Cluster
from launcher.slurm.queue import Partition, partitions

#: Asks a question with a default answer and returns what was answered.
Ask = Callable[[str, str], str]
_DAY = "24:00:00"


def ask_profile(ask: Ask) -> tuple[str, Cluster]:
    """Name and profile for the cluster of this login node;
    raises `UserError` without Slurm or for a wrong answer.
    """
    listed = partitions()
    if not listed:
        raise UserError(
            "sinfo lists no partition: ask the site which one you may use, and write the profile by"
            " hand"
        )
    partition = _chosen(listed, ask("Partition", _most_gpus(listed).name))
    gpus = _count(ask("GPUs a node (0: train on CPU)", str(partition.gpus)), "GPUs a node")
    tasks = max(1, gpus)
    cores = _count(
        ask("Cores a task (one task a GPU)", str(max(1, partition.cores // tasks))), "cores a task"
    )
    answers: dict[str, Any] = {
        "description": f"partition {partition.name}: {partition.nodes} nodes, {partition.gpus} GPUs"
        " each",
        "partition": partition.name,
        "gpus_per_node": gpus,
        "gpu_type": (partition.gpu_type or None) if gpus else None,
        "gpu": _kind(ask, partition) if gpus else None,
        "gpu_request": _gpu_request(ask) if gpus else "none",
        "cores_per_task": cores,
        "account": ask("Account (empty: your default one)", "") or None,
        "time_limit": ask("Time limit of a job", _longest(partition)),
        "venv": ask("Virtual environment on a shared file system (empty: none)", _own_environment())
        or None,
    }
    name = ask("Name of the profile", partition.name)
    try:
        return name, Cluster.model_validate(answers)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}"
        ) from error


def _most_gpus(listed: Sequence[Partition]) -> Partition:
    """The partition to propose: the most GPUs a node, then the site's default."""
    return max(listed, key=lambda partition: (partition.gpus, partition.is_default))


def _chosen(listed: Sequence[Partition], name: str) -> Partition:
    for partition in listed:
        if partition.name == name:
            return partition
    names = [partition.name for partition in listed]
    raise ConfigError(
        f"partition {name}: there is none of this name{nearest(name, names)}; there are {names}"
    )


def _count(answer: str, what: str) -> int:
    if not answer.isdigit():
        raise ConfigError(f"{what}: expected a number, found {answer!r}")
    return int(answer)


def _kind(ask: Ask, partition: Partition) -> str | None:
    """The kind of GPU as `electra_dist.plan` calls it."""
    named = (partition.gpu_type or "").lower()
    answer = ask(
        f"Kind of GPU, for the plan ({', '.join(DEVICES)}; empty: none)",
        named if named in DEVICES else "",
    )
    if answer:
        return find_device(answer).name
    return None


def _gpu_request(ask: Ask) -> str:
    answer = ask("How GPUs are asked for (gres, gpus-per-node, none)", "gres")
    if answer not in ("gres", "gpus-per-node", "none"):
        raise ConfigError(
            f"how GPUs are asked for: expected gres, gpus-per-node or none, found {answer!r}"
        )
    return answer


def _longest(partition: Partition) -> str:
    if partition.time_limit[:1].isdigit():
        return partition.time_limit
    return _DAY


def _own_environment() -> str:
    """The virtual environment that runs this program, as a proposal; empty when it runs in none."""
    if sys.prefix != sys.base_prefix:
        return sys.prefix
    return ""
