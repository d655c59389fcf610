"""Ranks and GPUs: one each, told apart by the device and not by its number."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from electra_dist.errors import ConfigError
from electra_dist.parallel import gpus, group
from tests.support.processes import run_ranks

GPU = torch.device("cuda", 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = lambda device: SimpleNamespace(uuid=f"uuid-{device.index}")  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)


@pytest.mark.parametrize(
    ("visible", "number", "name"),
    [
        (None, 1, "uuid-1"),
        ("0,1", 0, "uuid-0"),
        ("GPU-8f1c,GPU-77aa", 1, "uuid-1"),
        ("MIG-5f,MIG-66", 0, "MIG-5F"),
        ("MIG-GPU-8f1c/1/0", 0, "MIG-GPU-8F1C/1/0"),
    ],
)
def test_a_gpu_is_named_by_the_device_or_the_instance_that_is_visible(
    two_gpus: None, visible: str | None, number: int, name: str
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert gpus.identity(torch.device("cuda", number), environment) == name


def test_one_gpu_each_is_good_the_same_number_on_other_nodes_and_other_uuids_too() -> None:
    gpus.check_one_each([("n1", "a"), ("n1", "b"), ("n2", "a"), ("n2", "b")], "0")


def test_a_shared_gpu_is_refused_with_the_ranks_and_what_to_do() -> None:
    places = [("n1", "a"), ("n1", "b"), ("n2", "a"), ("n2", "a"), ("n1", "b")]
    with pytest.raises(ConfigError) as refused:
        gpus.check_one_each(places, "0,1")
    assert (
        "ranks 1, 4 have the same GPU on n1, b (and 1 more GPUs are shared): one rank a GPU"
        in str(refused.value)
    )
    assert "CUDA_VISIBLE_DEVICES is 0,1 there" in str(refused.value)


def open_on_one_gpu(world: Any) -> str:
    """Two ranks that both see one GPU, as far as they can be without any."""
    torch.cuda.get_device_properties = lambda device: SimpleNamespace(uuid="the-only-one")
    try:
        group.check_gpus(replace(world, device=GPU))
    except ConfigError as error:
        return str(error)
    return ""


def test_all_ranks_refuse_alike() -> None:
    first, second = run_ranks(open_on_one_gpu, 2)
    assert first == second
    assert first.startswith("ranks 0, 1 have the same GPU on ")
