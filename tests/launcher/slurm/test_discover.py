"""A new profile follows what sinfo reports, unless the user says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from electra_dist.errors import ConfigError
from launcher.slurm import discover
from launcher.slurm.discover import ask_profile
from launcher.slurm.queue import Partition


def defaults(_question: str, default: str) -> str:
    return default


def answering(**answers: str) -> Any:
    return lambda question, default: answers.get(question.split()[0].lower(), default)


def test_the_testbed_proposes_its_own_sizes(testbed: Any) -> None:
    name, cluster = ask_profile(defaults)
    assert name == cluster.partition == "main"
    assert (cluster.gpus_per_node, cluster.gpu_request, cluster.cores_per_task) == (2, "gres", 4)
    assert cluster.time_limit == "1:00:00"


def test_the_partition_with_gpus_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [
        Partition("cpu", 100, 128, 256_000, 0, None, "7-00:00:00", is_default=True),
        Partition("gpu", 10, 64, 512_000, 8, "h100", "infinite", is_default=False),
    ]
    monkeypatch.setattr(discover, "partitions", lambda: listed)
    name, cluster = ask_profile(answering(account="lab", name="mine"))
    assert (name, cluster.partition, cluster.gpu_type, cluster.account) == (
        "mine",
        "gpu",
        "h100",
        "lab",
    )
    assert (cluster.cores_per_task, cluster.time_limit) == (8, "24:00:00")
    _, on_cpu = ask_profile(answering(partition="cpu"))
    assert (on_cpu.gpus_per_node, on_cpu.gpu_request) == (0, "none")
    for wrong in ({"partition": "gpuu"}, {"gpus": "many"}, {"account": "a b"}, {"how": "please"}):
        with pytest.raises(ConfigError):
            ask_profile(answering(**wrong))
