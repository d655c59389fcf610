"""Measures what a job is about to run on, in under a minute, and names the nodes that would slow it
down or break it.

    srun electra-dist preflight CONFIG --bad-nodes FILE

First step of every Slurm job; one rank a GPU, gloo on CPU. Every rank measures its device; the
first rank of a node measures the disks; pairs of nodes measure the network between them.
`verdict` has what it means. Exit status: 0 all good, 3 bad nodes (listed in FILE, one a
line), 74 the file system of the run cannot take it, 2 a mistake of the user.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch
import torch.distributed as dist

from electra_dist.config import Config
from electra_dist.errors import EXIT_BAD_NODES, EXIT_OK, DataError, StorageError, UserError
from electra_dist.files.writing import writing
from electra_dist.measure.device_rates import free_memory, gpu_state, host_to_device_rate
from electra_dist.measure.disk_rates import Disk, measure_disk, nearest_existing, needed_bytes
from electra_dist.measure.network_rates import (
    TIMEOUT,
    all_reduce_rate,
    between_rate,
    within_rate,
)
from electra_dist.measure.verdict import Measurement, Verdict, compare_nodes
from electra_dist.parallel.collectives import barrier, gather_objects
from electra_dist.parallel.ending import end_by
from electra_dist.parallel.group import backends, check_gpus, check_meeting_point, leave
from electra_dist.parallel.hardware import product_rate
from electra_dist.parallel.meeting import raise_open_files
from electra_dist.parallel.world import World, detect


def preflight(
    config: Config, environment: dict[str, str], check_room: bool = True
) -> tuple[World, Verdict]:
    """Measure on every rank and judge on every rank alike; opens and closes its own process group.

    Without `check_room` the size of the checkpoints is no matter. Raises `UserError` when the
    environment names no world, or when nodes do not find each other.
    """
    end_by(leave)
    world = detect(environment, config.train.device, torch.cuda.device_count())
    _open_group(world)
    try:
        check_gpus(world)
        node = environment.get("SLURMD_NODENAME") or platform.node()
        places = gather_objects([node, world.local_rank], world)
        own = _measure(config, world, node, places, environment, check_room)
        measured = gather_objects(own.__dict__, world)
        bandwidth = all_reduce_rate(world, None, world.world_size)
    finally:
        dist.destroy_process_group()
    return world, compare_nodes([Measurement(**one) for one in measured], bandwidth)


def _open_group(world: World) -> None:
    backend = backends(world)
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    check_meeting_point(world)
    raise_open_files()
    try:
        if world.world_size == 1:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        else:
            address = f"tcp://{world.master_address}:{world.master_port}"
            dist.init_process_group(
                backend,
                init_method=address,
                rank=world.rank,
                world_size=world.world_size,
                timeout=TIMEOUT,
            )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"rank {world.rank} finds no other rank at {world.master_address}:{world.master_port}"
            f" within {TIMEOUT.seconds} s: {error}; is the address of the first node reachable"
            " from all others?"
        ) from error


def report(verdict: Verdict, bad_nodes: Path | None) -> int:
    """The exit status that a verdict resolves to, once the list of bad nodes is written, one per
    line.

    Raises `StorageError` when the file system of the run cannot take it, or the list cannot be
    written; `DataError` when no node can read the shards.
    """
    if verdict.storage:
        raise StorageError(verdict.storage)
    if bad_nodes:
        with writing(bad_nodes, "the list of bad nodes"):
            bad_nodes.write_text("".join(f"{node}\n" for node in verdict.bad_nodes))
    if verdict.bad_nodes:
        return EXIT_BAD_NODES
    if verdict.shards:
        raise DataError(verdict.shards)
    return EXIT_OK


def _measure(
    config: Config,
    world: World,
    node: str,
    places: Sequence[list[object]],
    environment: Mapping[str, str],
    check_room: bool,
) -> Measurement:
    device = world.device
    if device.type == "cuda":
        dtype = torch.bfloat16
    else:
        dtype = torch.float32
    products = product_rate(device, dtype)
    copies = host_to_device_rate(device)
    within = within_rate(world, node, places)
    between = between_rate(world, node, places)
    first = places.index([node, world.local_rank]) == min(
        index for index, (name, _) in enumerate(places) if name == node
    )
    nodes = len({str(name) for name, _ in places})
    if first:
        disk = measure_disk(config, world, nodes, environment)
    else:
        disk = Disk()
    if check_room:
        needed = needed_bytes(config)
    else:
        needed = 0
    ecc, mhz = gpu_state(world)
    barrier(world)
    # right after a barrier: ranks differ by its latency and by the skew of their clocks
    clock = time.time()
    return Measurement(
        rank=world.rank,
        node=node,
        device=str(device),
        matrix_tflops=products.warm / 1e12,
        cold_matrix_tflops=products.cold / 1e12,
        memory_gib=free_memory(device) / 2**30,
        host_to_device_gb_s=copies,
        within_gb_s=within,
        between_gb_s=between,
        write_mb_s=disk.write_mb_s,
        read_mb_s=disk.read_mb_s,
        shards_mb_s=disk.shards_mb_s,
        disk_free_gib=shutil.disk_usage(nearest_existing(config.run.path)).free / 2**30,
        disk_needed_gib=needed / 2**30,
        clock=clock,
        ecc_errors=ecc,
        clock_mhz=mhz,
        versions=_versions(),
        run_error=disk.run_error,
        shards_error=disk.shards_error,
    )


def _versions() -> dict[str, str]:
    if torch.cuda.is_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    else:
        nccl = "none"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nccl": nccl,
        "deepspeed": metadata.version("deepspeed"),
        "code": _code_fingerprint(),
    }


def _code_fingerprint() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]
