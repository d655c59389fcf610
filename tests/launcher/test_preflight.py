"""The preflight finds the node that differs, and the job goes on without it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from electra_dist.measure import network_rates
from electra_dist.measure.verdict import Measurement, compare_nodes
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from launcher.records import events
from launcher.status import status
from tests.support import PROGRAMS

SLOW_NODE = (str(PROGRAMS / "slow_node.py"),)
GOOD = Measurement(
    rank=0,
    node="n1",
    device="cuda:0",
    matrix_tflops=600.0,
    cold_matrix_tflops=450.0,
    memory_gib=78.0,
    host_to_device_gb_s=50.0,
    within_gb_s=400.0,
    between_gb_s=40.0,
    write_mb_s=900.0,
    read_mb_s=2000.0,
    shards_mb_s=1500.0,
    disk_free_gib=1000.0,
    disk_needed_gib=60.0,
    clock=1000.0,
    ecc_errors=0,
    clock_mhz=1980,
    versions={"torch": "2.13.0", "code": "abc"},
)


def world(**changes: Any) -> list[Measurement]:
    """Four nodes of two ranks; the second rank of n3 differs."""
    ranks = [replace(GOOD, rank=rank, node=f"n{rank // 2 + 1}") for rank in range(8)]
    ranks[5] = replace(ranks[5], **changes)
    return ranks


@pytest.mark.parametrize("rank", range(4))
def test_all_ranks_open_the_communicator_before_two_of_them_exchange(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """NCCL opens a group's communicator in its first call,
    which waits for every rank of the group.
    """
    calls: list[Any] = []
    dist = network_rates.dist
    monkeypatch.setattr(network_rates, "barrier", lambda world: None)
    monkeypatch.setattr(dist, "P2POp", lambda *arguments: arguments)
    monkeypatch.setattr(
        network_rates.dist,
        "all_reduce",
        lambda tensor, group=None: calls.append(("together", group)),
    )
    monkeypatch.setattr(
        network_rates.dist,
        "batch_isend_irecv",
        lambda operations: calls.append("two of them") or [],
    )
    places: list[list[object]] = [["n1", 0], ["n1", 1], ["n2", 0], ["n2", 1]]
    network_rates.between_rate(World(rank=rank, world_size=4), str(places[rank][0]), places)
    assert calls[0] == ("together", None)
    assert ("two of them" in calls) == (rank in (0, 2))


def test_equal_nodes_are_good() -> None:
    verdict = compare_nodes(world(), 300.0)
    assert verdict.ok
    assert verdict.table().count(" ok") == 4
    assert "all-reduce over all ranks: 300.00 GB/s" in verdict.table()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matrix_tflops": 450.0}, "matmul TFLOP/s: 450, the median of 4 nodes is 600"),
        ({"memory_gib": 40.0}, "free memory"),
        ({"host_to_device_gb_s": 12.0}, "host->GPU GB/s: 12.00"),
        ({"within_gb_s": 100.0}, "within GB/s"),
        ({"between_gb_s": 4.0}, "between GB/s"),
        ({"write_mb_s": 9.0}, "run write MB/s"),
        ({"ecc_errors": 2}, "2 uncorrected ECC errors"),
        (
            {"disk_free_gib": 50.0},
            "no space left for the run: 50.00 GiB free under the run directory",
        ),
        ({"versions": {"torch": "2.12.0", "code": "abc"}}, "torch: 2.12.0, the others have 2.13.0"),
        ({"versions": {"torch": "2.13.0"}}, "code: none, the others have abc"),
        (
            {"run_error": "/r: cannot be written"},
            "/r: cannot be written; the other nodes have no such problem",
        ),
        ({"shards_error": "shards: there are none in /s"}, "shards: there are none"),
    ],
)
def test_one_bad_rank_makes_its_node_bad(changes: dict[str, Any], words: str) -> None:
    verdict = compare_nodes(world(**changes))
    assert verdict.bad_nodes == ["n3"]
    assert f"n3: {words}" in verdict.table()


@pytest.mark.parametrize("nodes", [1, 4])
def test_what_all_nodes_see_alike_is_the_fault_of_the_file_system_and_not_of_the_nodes(
    nodes: int,
) -> None:
    ranks = [replace(GOOD, rank=rank, node=f"n{rank + 1}") for rank in range(nodes)]
    full = compare_nodes([replace(one, disk_free_gib=50.0) for one in ranks])
    assert (full.ok, full.bad_nodes) == (False, [])
    assert full.storage is not None
    assert "50.00 GiB free under the run directory, its checkpoints need 60.00 GiB" in full.storage
    refused = compare_nodes(
        [replace(one, run_error="/r: cannot be written: quota exceeded") for one in ranks]
    )
    assert (refused.storage, refused.bad_nodes) == ("/r: cannot be written: quota exceeded", [])
    gone = compare_nodes(
        [replace(one, shards_error="shards: there are none in /s") for one in ranks]
    )
    assert (gone.shards, gone.storage, gone.bad_nodes) == ("shards: there are none in /s", None, [])


def test_a_wrong_clock_is_found() -> None:
    ranks = [replace(one, clock=1030.0) if one.node == "n3" else one for one in world()]
    assert compare_nodes(ranks).bad_nodes == ["n3"]


def test_noise_and_missing_rates_are_no_fault() -> None:
    ranks = world(matrix_tflops=570.0, between_gb_s=None, clock=1001.0, clock_mhz=None)
    assert compare_nodes(ranks).ok
    assert compare_nodes([replace(GOOD, between_gb_s=None, within_gb_s=None)]).ok


def test_what_a_disk_gives_is_enough_at_some_point() -> None:
    """The others have the shards in memory, this node reads them at a good speed from the disk."""
    others = [replace(one, shards_mb_s=9000.0, read_mb_s=9000.0) for one in world()]
    assert compare_nodes(
        [replace(others[5], shards_mb_s=60.0, read_mb_s=250.0), *others[:5], *others[6:]]
    ).ok
    assert not compare_nodes([replace(others[5], shards_mb_s=40.0), *others[:5], *others[6:]]).ok


def test_a_planted_slow_node_is_found_and_left_out(testbed: Any, desk: Any) -> None:
    submission = desk.launch("preflight", nodes="3", preflight=SLOW_NODE)
    run = RunDir(submission.runs[0])
    deadline = time.monotonic() + 240
    while status(run).state not in ("finished", "failed"):
        assert time.monotonic() < deadline, "\n".join(
            path.read_text() for path in run.logs.glob("*.log")
        )
        time.sleep(0.3)
    noted = events(run, "001")
    said = "\n".join(path.read_text() for path in sorted(run.logs.glob("*.log")))
    assert [event.kind for event in noted] == [
        "preflight", "requeue", "exclude", "preflight", "preflight", "start", "finished"
    ], said  # fmt: skip
    assert noted[2].detail == "n2"
    assert "3 ranks on n1,n3,n4" in noted[5].detail
    assert "bad nodes found by the preflight, exit code 3" in noted[1].detail
    started, passed = (datetime.fromisoformat(event.time) for event in noted[3:5])
    assert (passed - started).total_seconds() < 60
    assert "n2: matmul TFLOP/s" in said
