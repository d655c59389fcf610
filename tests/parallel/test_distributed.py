"""Who a process is under torchrun, Slurm and alone,
and that an error of one rank is every rank's.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.parallel.collectives import (
    all_reduce_max,
    all_reduce_sum,
    any_rank,
    broadcast_object,
    gather_objects,
    raise_together,
    together,
)
from electra_dist.parallel.group import backends, check_meeting_point
from electra_dist.parallel.world import World, choose_device, detect, first_host, note_alone
from tests.support.processes import end_ranks, run_ranks

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "gpu[003-004]",
}


def without(env: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in names}


def test_torchrun_says_who_i_am() -> None:
    assert detect(TORCHRUN) == World(3, 4, 1, torch.device("cpu"), "torchrun", "node7", 29500)


def test_torchrun_goes_before_slurm() -> None:
    assert detect(SLURM | TORCHRUN).launcher == "torchrun"


def test_slurm_says_who_i_am() -> None:
    world = detect(SLURM)
    assert (world.rank, world.world_size, world.local_rank, world.launcher) == (5, 8, 1, "slurm")
    assert world.master_address == "gpu003"


def test_all_tasks_of_a_slurm_step_meet_at_the_same_port_and_steps_at_others() -> None:
    ports = {detect(SLURM | {"SLURM_PROCID": str(rank)}).master_port for rank in range(8)}
    assert len(ports) == 1
    assert 1024 < ports.pop() < 32768
    assert detect(SLURM).master_port != detect(SLURM | {"SLURM_STEP_ID": "1"}).master_port
    assert detect(SLURM | {"MASTER_PORT": "4000"}).master_port == 4000


def test_the_launcher_may_name_the_address_of_the_first_node() -> None:
    assert detect(SLURM | {"ELECTRA_DIST_MASTER_ADDR": "10.0.0.1"}).master_address == "10.0.0.1"


def test_a_first_node_whose_name_does_not_resolve_is_refused_within_seconds() -> None:
    before = time.monotonic()
    world = World(rank=1, world_size=2, master_address="no-such-node.invalid", master_port=29500)
    with pytest.raises(
        UserError,
        match=r"no-such-node\.invalid does not resolve on .*; export ELECTRA_DIST_MASTER_ADDR",
    ):
        check_meeting_point(world)
    assert time.monotonic() - before < 60
    check_meeting_point(World(rank=1, world_size=2, master_address="127.0.0.1", master_port=29500))
    check_meeting_point(World())


def test_one_slurm_node_needs_no_name() -> None:
    env = without(SLURM, "SLURM_JOB_NODELIST") | {"SLURM_STEP_NUM_NODES": "1"}
    assert detect(env).master_address == "127.0.0.1"


def test_several_slurm_nodes_without_a_list_fail_instead_of_meeting_at_localhost() -> None:
    with pytest.raises(ConfigError, match="ELECTRA_DIST_MASTER_ADDR"):
        detect(without(SLURM, "SLURM_JOB_NODELIST"))


@pytest.mark.parametrize(
    "env",
    [
        {},
        # script of sbatch
        {
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS": "8",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
        },
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"},  # shell of salloc
        SLURM | {"SLURM_STEP_ID": "batch"},
        SLURM
        # srun --pty bash in a larger allocation
        | {
            "SLURM_PROCID": "0",
            "SLURM_STEP_NUM_TASKS": "1",
        },
        {"LOCAL_RANK": "0"},
    ],
)
def test_a_shell_is_alone_even_inside_a_slurm_job(env: dict[str, str]) -> None:
    assert detect(env) == World()


def test_one_process_of_a_larger_job_is_told_that_it_trains_alone() -> None:
    in_job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_JOB_NUM_NODES": "2"}
    note = note_alone(detect(in_job), in_job)
    assert note is not None
    assert "Slurm job 7 of 2 nodes (tasks: 8)" in note
    one = {
        "SLURM_PROCID": "0",
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "4",
    }
    one_task = SLURM | one
    assert note_alone(detect(one_task), one_task)
    small = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    for env in ({}, small, SLURM, TORCHRUN, in_job | TORCHRUN):
        assert note_alone(detect(env), env) is None


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (without(TORCHRUN, "MASTER_ADDR"), "MASTER_ADDR missing"),
        (TORCHRUN | {"RANK": "4"}, "rank 4 does not lie in a world of 4"),
        (TORCHRUN | {"WORLD_SIZE": "many"}, "WORLD_SIZE = 'many': expected an integer"),
        (without(SLURM, "SLURM_LOCALID"), "SLURM_LOCALID missing"),
    ],
)
def test_contradictory_variables_are_refused(env: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detect(env)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[003-005,9],x1", "gpu003"),
        ("gpu[9,003-005]", "gpu9"),
        ("rack[2-3]node[07-09].cluster", "rack2node07.cluster"),
        ("a-b-[1-2]", "a-b-1"),
    ],
)
def test_first_host_of_a_slurm_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("setting", "local_rank", "gpus", "device"),
    [
        ("auto", 0, 0, "cpu"),
        ("auto", 2, 4, "cuda:2"),
        ("cuda", 3, 1, "cuda:0"),  # bound by Slurm: sees its own GPU only
        ("cpu", 0, 4, "cpu"),
    ],
)
def test_device_of_a_rank(setting: Any, local_rank: int, gpus: int, device: str) -> None:
    assert choose_device(setting, local_rank, gpus) == torch.device(device)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.device = cuda: PyTorch sees no GPU"):
        choose_device("cuda", 0, 0)
    with pytest.raises(ConfigError, match="local rank 2 has no GPU: this node shows 2"):
        choose_device("auto", 2, 2)


# --- several processes ----------------------------------------------------------------------------


def _error_of(world: Any, error: Exception | None) -> list[Any]:
    try:
        raise_together(error, world)
    except Exception as raised:
        return [type(raised).__name__, str(raised), getattr(raised, "everywhere", None)]
    return []


def talk(world: Any) -> dict[str, Any]:
    """Every collective once."""
    mine = world.rank == 1
    found: dict[str, Any] = {
        "gathered": gather_objects({"rank": world.rank, "text": "ü" * world.rank * 50}, world),
        "broadcast": broadcast_object(["from", world.rank], world),
        "sum": all_reduce_sum(torch.tensor([1.0 + world.rank])).tolist(),
        "max": all_reduce_max(world.rank * 10, world),
        "any": [any_rank(mine, world), any_rank(False, world)],
        "none": _error_of(world, None),
        "one": _error_of(world, DataError("shard 7 is damaged") if mine else None),
        "both": _error_of(world, UserError(f"rank {world.rank} is unhappy")),
        "same": _error_of(world, ConfigError("the same mistake")),
        "bug": _error_of(world, ZeroDivisionError("oops") if mine else None),
    }
    try:
        with together(world):
            if mine:
                raise DataError("inside a block")
        found["block"] = "went on"
    except DataError as error:
        found["block"] = str(error)
    return found


@pytest.fixture(scope="module")
def talked() -> list[dict[str, Any]]:
    """What both ranks heard."""
    return run_ranks(talk, 2)


def test_collectives_give_every_rank_the_same(talked: list[dict[str, Any]]) -> None:
    for heard in talked:
        assert heard["gathered"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "ü" * 50}]
        assert heard["broadcast"] == ["from", 0]
        assert heard["sum"] == [3.0]
        assert heard["max"] == 10
        assert heard["any"] == [True, False]


def test_an_error_of_one_rank_is_raised_by_all_in_its_own_class(
    talked: list[dict[str, Any]],
) -> None:
    for heard in talked:
        assert heard["none"] == []
        assert heard["one"] == ["DataError", "shard 7 is damaged", True]
        assert heard["both"] == ["UserError", "rank 0 is unhappy; rank 1 is unhappy", True]
        assert heard["same"] == ["ConfigError", "the same mistake", True]
        assert heard["block"] == "inside a block"


def test_a_bug_of_one_rank_ends_the_others_too(talked: list[dict[str, Any]]) -> None:
    assert talked[0]["bug"] == ["PeerFailedError", "rank 1: ZeroDivisionError: oops", False]
    assert talked[1]["bug"] == ["ZeroDivisionError", "oops", None]


def talk_as_if_on_gpus(world: Any) -> list[Any]:
    """What the ranks agree on with a device that is not there:
    a tensor on it could not even be made.
    """
    away = replace(world, device=torch.device("cuda", world.local_rank))
    with together(away):
        pass
    return [
        any_rank(world.rank == 1, away),
        gather_objects(world.rank, away),
        broadcast_object(world.rank + 5, away),
    ]


def test_what_ranks_agree_on_travels_between_hosts_and_waits_for_no_device() -> None:
    assert run_ranks(talk_as_if_on_gpus, 2) == [[True, [0, 1], 5]] * 2


def test_ranks_on_gpus_have_a_group_for_their_hosts_too() -> None:
    gpu = torch.device("cuda", 0)
    assert backends(World(world_size=2, device=gpu)) == "cpu:gloo,cuda:nccl"
    assert backends(World(device=gpu)) == "nccl"
    assert backends(World(world_size=2)) == "gloo"


def vanish(world: Any) -> None:
    """Rank 1 leaves; rank 0 waits for it in a collective."""
    if world.rank == 0:
        any_rank(False, world)


def test_a_rank_that_is_gone_is_noticed() -> None:
    start = time.monotonic()
    ended = end_ranks(vanish, 2, timeout=60)
    assert [end.code for end in ended] == [1, 0]
    assert time.monotonic() - start < 50


def test_a_process_leaves_with_its_status_and_output_and_without_the_end_of_the_interpreter(
    tmp_path: Path,
) -> None:
    """Exit functions run; module globals are not torn down,
    where gloo's threads would still want the interpreter.
    """
    program = """
import atexit, sys
from electra_dist.parallel.group import leave
class Torn:
    def __del__(self, print=print): print("torn down", flush=True)
torn = Torn()
atexit.register(print, "exit function")
print("output")
leave(75)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (75, ["output", "exit function"]), (
        done.stderr
    )
