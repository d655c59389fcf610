"""Hierarchical partitioning (ZeRO++ hpZ):
four ranks as two nodes of two train what plain stage 3 trains.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from electra_dist.checkpoint import loading
from electra_dist.errors import ConfigError
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.runs.directory import RunDir
from electra_dist.train.step import evaluate_step, train_step
from tests.support.plain import PlainTrainer
from tests.support.processes import run_ranks
from tests.support.small import (
    SEED,
    full_parameters,
    make_config,
    make_engines,
    make_micro_batch,
    make_step,
    save_checkpoint,
)

STEPS = 4
#: Four ranks with two micro-batches each.
COMMON = ["train.micro_rows=1"]
HPZ = "zero.hpz_partition_size=2"
CASES = {
    "plain": [],
    "hpz": [HPZ],
    "hpz, optimizer offloaded": [HPZ, "zero.offload_optimizer=true"],
    "hpz, generator at stage 1": [HPZ, "zero.generator.stage=1"],
    "hpz, small parameters whole": [HPZ, "zero.persistence_threshold=100"],
}


class Gathered:
    """Elements of every weight gathering (all_gather_into_tensor)
    by the size of its group of ranks.
    """

    def __init__(self) -> None:
        from deepspeed.comm.torch import TorchBackend

        self.elements: dict[str, int] = {}
        original = TorchBackend.all_gather_into_tensor

        def counted(
            backend: Any, *, output_tensor: torch.Tensor, group: Any = None, **keywords: Any
        ) -> Any:
            size = str(dist.get_world_size(group))
            self.elements[size] = self.elements.get(size, 0) + output_tensor.numel()
            return original(backend, output_tensor=output_tensor, group=group, **keywords)

        TorchBackend.all_gather_into_tensor = counted


def losses(engines: Any, config: Any, world: Any, first: int, last: int) -> list[list[float]]:
    """Steps first to last - 1; the mean losses of each."""
    found = []
    for index in range(first, last):
        step, samples = make_step(config, index, world.rank, world.world_size)
        totals = train_step(engines, step, config, 1 - index / 20, samples)
        sums = [
            totals.sums["generator_loss_sum"],
            totals.sums["masked_count"],
            totals.sums["discriminator_loss_sum"],
            totals.sums["real_count"],
        ]
        generator, masked, discriminator, real = all_reduce_sum(torch.stack(sums).double()).tolist()
        found.append([generator / masked, discriminator / real])
    return found


def train_all(world: Any, cases: dict[str, list[str]], out: str) -> dict[str, Any]:
    """Train, save and resume as two nodes of two ranks;
    losses, gathered elements of a step, losses after loading.
    """
    world, found = replace(world, local_rank=world.rank % 2), {}
    gathered = Gathered()
    for name, overrides in cases.items():
        config, run = make_config(*COMMON, *overrides), RunDir(Path(out) / name)
        engines = make_engines(config, world)
        straight = losses(engines, config, world, 0, 2)
        save_checkpoint(run, 2, engines, {}, world, keep=1)
        gathered.elements.clear()
        straight += losses(engines, config, world, 2, 3)
        elements = dict(gathered.elements)
        straight += losses(engines, config, world, 3, STEPS)
        parameters = full_parameters(engines)
        if world.is_main:
            torch.save(parameters, Path(out) / f"{name}.pt")
        # Second copies of the newest weights exist when the older ones are loaded.
        evaluate_step(engines, make_micro_batch([1, 2])[0], config)
        loading.load_checkpoint(run, 2, engines, world)
        again = losses(engines, config, world, 2, STEPS)
        other = make_engines(make_config(*COMMON, *([] if name != "plain" else [HPZ])), world)
        loading.load_checkpoint(run, 2, other, world)
        changed = losses(other, config, world, 2, STEPS)
        found[name] = {
            "straight": straight,
            "again": again,
            "changed": changed,
            "elements": elements,
        }
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What rank 0 found in every case."""
    out = tmp_path_factory.mktemp("hpz")
    return out, run_ranks(train_all, 4, cases=CASES, out=str(out), timeout=240)[0]


@pytest.mark.parametrize("name", CASES)
def test_parameters_equal_plain_pytorch(trained: tuple[Path, dict[str, Any]], name: str) -> None:
    plain = PlainTrainer(make_config(*COMMON), SEED)
    for index in range(STEPS):
        rows = [index * 8 + row for row in range(8)]
        plain.train([row for rank in range(4) for row in rows[rank::4]], 1 - index / 20)
    got = torch.load(trained[0] / f"{name}.pt")
    assert (
        max(float((got[key] - weight).abs().max()) for key, weight in plain.weights.items()) < 1e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_losses_go_on_after_loading_with_and_without_it(
    trained: tuple[Path, dict[str, Any]], name: str
) -> None:
    found = trained[1][name]
    for part in ("again", "changed"):
        for got, wanted in zip(found[part], found["straight"][2:], strict=True):
            assert got == pytest.approx(wanted, abs=1e-5), part


def test_only_the_first_micro_batch_gathers_from_all_ranks(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    elements = {name: trained[1][name]["elements"] for name in CASES}
    whole = elements["plain"]["4"]  # two micro-batches over all four ranks
    assert elements["plain"] == {"4": whole}
    assert elements["hpz"] == {"4": whole / 2, "2": whole / 2}


def refuse(world: Any, local_ranks: list[int], size: int) -> str:
    config = make_config(*COMMON, f"zero.hpz_partition_size={size}")
    try:
        make_engines(config, replace(world, local_rank=local_ranks[world.rank]))
    except ConfigError as error:
        return str(error) if error.everywhere else f"on one rank: {error}"
    return "built"


def test_ranks_that_do_not_lie_node_by_node_are_refused_by_all() -> None:
    for message in run_ranks(refuse, 4, local_ranks=[0, 0, 1, 1], size=2):
        assert message.startswith(
            "zero.hpz_partition_size = 2: its groups are of consecutive ranks"
        )
        assert "[0, 0, 1, 1]" in message
