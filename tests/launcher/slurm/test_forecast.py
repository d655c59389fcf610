"""Before submission: does it fit, how many time slots, is there time to save;
what cannot work is refused.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.errors import ConfigError, UserError
from electra_dist.plan import Plan
from launcher.slurm import forecast as module
from launcher.slurm.clusters import Cluster
from launcher.slurm.forecast import Data, Disk, Forecast, Slots, forecast, refuse

DAY, DATA = 86400, Data(30522, None)
H100 = Cluster(gpus_per_node=8, gpu="h100", time_limit="24:00:00")


def config(preset: str = "base", **train: Any) -> configuration.Config:
    content = {"steps": 100_000, "global_rows": 256, "micro_rows": 8} | train
    tree = {
        "data": {"shards": "shards", "row_length": 512},
        "model": {"preset": preset},
        "train": content,
    }
    return configuration.build(tree | {"zero": {"stage": 1}, "precision": {"mode": "bf16"}})


def of(
    cluster: Cluster = H100,
    counts: tuple[int, ...] = (1,),
    limit: int | None = DAY,
    chain: int = 1,
    requeue: bool = True,
    steps_done: int = 0,
    preset: str = "base",
    disk: Disk | None = None,
    **train: Any,
) -> Forecast:
    slots = Slots(limit, chain, requeue)
    return forecast(config(preset, **train), DATA, cluster, counts, slots, steps_done, disk)


@pytest.fixture
def ten_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plan says ten days on one node and two seconds a step."""
    honest = module.plan_run

    def planned(*arguments: Any, **named: Any) -> Plan:
        plan = honest(*arguments, **named)
        stage = dataclasses.replace(plan.configured, days=10.0 / plan.nodes, step_seconds=2.0)
        return dataclasses.replace(plan, configured=stage)

    monkeypatch.setattr(module, "plan_run", planned)


def test_a_base_model_fits_and_its_checkpoint_is_twelve_bytes_a_parameter() -> None:
    found = of()
    assert not found.problems
    assert not found.warnings
    assert "h100" in found.lines[0]
    assert found.lines[0].endswith("of 80 GB a GPU, fits")
    # BERT-base has 110 million parameters (arXiv 1810.04805, section 3),
    # a third-wide generator adds some 10%
    assert 110e6 * 12 < found.checkpoint_bytes < 140e6 * 12
    assert found.save_seconds == pytest.approx(found.checkpoint_bytes / 200e6)


def test_days_become_time_slots_less_what_starting_and_saving_takes(ten_days: None) -> None:
    usable = DAY - 300 - module.START_SECONDS
    assert of().days == (10.0, 10.0)
    assert of().slots == (-(-10 * DAY // usable),) * 2 == (11, 11)
    assert of(counts=(1, 2, 4)).days == (10.0, 2.5)
    assert of(counts=(1, 2, 4)).slots == (11, 3)
    assert (
        "10.0 days, 11 time slots on 1 of the nodes; 2.5 days, 3 time slots on 4"
        in of(counts=(1, 2, 4)).lines[1]
    )
    assert of(limit=None).slots is None


def test_nodes_that_gain_nothing_are_said() -> None:
    slow = H100.model_copy(update={"network_gbit": 1})
    assert "4 nodes are no faster than 1" in of(slow, counts=(1, 4)).warnings[0]
    assert not of(H100.model_copy(update={"network_gbit": 3200}), counts=(1, 4)).warnings


def test_a_run_that_goes_on_takes_what_is_left(ten_days: None) -> None:
    assert of(steps_done=75_000).days == (2.5, 2.5)
    assert of(steps_done=100_000).slots == (1, 1)


def test_too_short_a_chain_is_said(ten_days: None) -> None:
    assert "`chain` 3: the run takes about 11 time slots" in of(chain=3).warnings[0]
    assert not of(chain=11).warnings
    assert "`chain` 11" in of(requeue=False).warnings[0]
    assert not of(requeue=False, limit=30 * DAY).warnings


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Cluster(gpus_per_node=8, gpu="l4")
    found = of(small, preset="xl", micro_rows=32)
    assert "DOES NOT FIT" in found.lines[0]
    with pytest.raises(
        UserError, match=r"will not fit: .* l4 has 24 GB; .* fits.*`ignore_plan` submits"
    ):
        refuse([found])
    with pytest.raises(UserError, match=r"v100 has no bf16: set precision\.mode=fp16"):
        refuse([of(Cluster(gpus_per_node=8, gpu="v100"))])
    refuse([of()])


def test_a_checkpoint_that_cannot_be_written_in_the_grace_time_is_refused(ten_days: None) -> None:
    gigabytes = of().checkpoint_bytes / 1e9
    rate = 10  # MB/s: some 140 s
    slow = H100.model_copy(update={"checkpoint_write_mb_s": rate, "signal_ahead_seconds": 60})
    needed = int(gigabytes * 1000 / rate + 2.0) + 1
    with pytest.raises(
        UserError, match=rf"signal_ahead_seconds = 60 .*do not fit.*set it to {2 * needed} or more"
    ):
        refuse([of(slow)])
    tight = slow.model_copy(update={"signal_ahead_seconds": needed + 1})
    assert "just fit" in of(tight).warnings[0]
    assert not of(tight).problems
    enough = slow.model_copy(update={"signal_ahead_seconds": 2 * needed})
    assert not of(enough).warnings
    # without a known GPU the size of the checkpoint is known all the same
    with pytest.raises(UserError, match="signal_ahead_seconds = 60"):
        refuse([of(slow.model_copy(update={"gpu": None}))])


def test_checkpoints_that_will_not_fit_on_the_disk_are_refused() -> None:
    one = of().checkpoint_bytes
    lines = of(disk=Disk(free=40 * one, checkpoints=0))
    assert not lines.problems
    assert "disk: " in lines.lines[-1]
    assert not of(
        disk=Disk(free=4 * one, checkpoints=0)
    ).problems  # keep = 3, and the one that is being written
    with pytest.raises(
        UserError, match=r"GB free and the checkpoints of this run need .*`ignore_plan` submits"
    ):
        refuse([of(disk=Disk(free=4 * one - 1, checkpoints=0))])
    assert not of(disk=Disk(free=one, checkpoints=3)).problems  # what is there needs no more room
    assert of(disk=Disk(free=one - 1, checkpoints=9)).problems


def test_the_kind_of_gpu_comes_from_the_profile() -> None:
    named = Cluster(gpus_per_node=8, gpu_type="a100")
    assert "8 a100" in of(named).lines[0]
    assert (
        "unknown; set gpu in the cluster profile"
        in of(Cluster(gpus_per_node=8, gpu_type="tesla")).lines[0]
    )
    assert "not planned for a CPU" in of(Cluster(gpus_per_node=0)).lines[0]
    assert "not planned for a CPU" in of(device="cpu").lines[0]
    assert of(Cluster(gpus_per_node=0)).days is None
    with pytest.raises(
        ConfigError, match=r"gpu = h1000 in the cluster profile: not known .did you mean 'h100'"
    ):
        of(Cluster(gpus_per_node=8, gpu="h1000"))
