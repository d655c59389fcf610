"""Measures what a job is about to run on, in under a minute, and names the nodes that would slow it
down or break it.

    srun python -m electra_dist.measure.preflight CONFIG --bad-nodes FILE

First step of every Slurm job; one rank a GPU, gloo on CPU. Every rank measures its device; the
first rank of a node measures the disks; pairs of nodes measure the network between them.
`preflight_verdict` says what it means. Exit status: 0 all good, 3 bad nodes (listed in FILE, one a
line), 74 the file system of the run cannot take it, 2 a mistake of the user.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path

import torch
import torch.distributed as dist

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.shards.manifest import Manifest
from electra_dist.errors import EXIT_BAD_NODES, EXIT_OK, DataError, StorageError, UserError
from electra_dist.files.writing import advice, reason, writing
from electra_dist.measure.verdict import Measurement, Verdict, judge
from electra_dist.parallel.collectives import barrier, gather_objects
from electra_dist.parallel.group import backends, check_gpus, check_meeting_point, leave
from electra_dist.parallel.hardware import product_rate, seconds_of
from electra_dist.parallel.meeting import raise_open_files
from electra_dist.parallel.world import World, detect
from electra_dist.plan import room_to_come
from electra_dist.runs.directory import RunDir

_TIMEOUT = timedelta(seconds=120)
_DISK_BYTES = 32 << 20
_TIMED_BYTES = 1 << 20
_REPEATS = 3


def preflight(
    config: Config, environment: dict[str, str], check_room: bool = True
) -> tuple[World, Verdict]:
    """Measure on every rank and judge on every rank alike; opens and closes its own process group.

    Without `check_room` the size of the checkpoints is no matter. Raises `UserError` when the
    environment names no world, or when nodes do not find each other.
    """
    world = detect(environment, config.train.device, torch.cuda.device_count())
    _open_group(world)
    try:
        check_gpus(world)
        node = environment.get("SLURMD_NODENAME") or platform.node()
        places = gather_objects([node, world.local_rank], world)
        measured = gather_objects(_measure(config, world, node, places, check_room).__dict__, world)
        bandwidth = _all_reduce_rate(world, None, world.world_size)
    finally:
        dist.destroy_process_group()
    return world, judge([Measurement(**one) for one in measured], bandwidth)


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
                timeout=_TIMEOUT,
            )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"rank {world.rank} finds no other rank at {world.master_address}:{world.master_port}"
            f" within {_TIMEOUT.seconds} s: {error}; is the address of the first node reachable"
            " from all others?"
        ) from error


def report(verdict: Verdict, bad_nodes: Path | None) -> int:
    """The exit status that a verdict comes to, once the list of bad nodes is written, one a line.

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
    config: Config, world: World, node: str, places: Sequence[list[object]], check_room: bool
) -> Measurement:
    device = world.device
    if device.type == "cuda":
        dtype = torch.bfloat16
    else:
        dtype = torch.float32
    products = product_rate(device, dtype)
    copies = _host_to_device_rate(device)
    within = _within_rate(world, node, places)
    between = _between_rate(world, node, places)
    first = places.index([node, world.local_rank]) == min(
        index for index, (name, _) in enumerate(places) if name == node
    )
    nodes = len({str(name) for name, _ in places})
    if first:
        disk = _measure_disk(config, world, nodes)
    else:
        disk = _Disk()
    ecc, mhz = _gpu_facts(world)
    barrier(world)
    clock = (
        time.time()
    )  # right after a barrier: ranks differ by its latency and by the skew of their clocks
    return Measurement(
        rank=world.rank,
        node=node,
        device=str(device),
        matrix_tflops=products.warm / 1e12,
        cold_matrix_tflops=products.cold / 1e12,
        memory_gib=_free_memory(device) / 2**30,
        host_to_device_gb_s=copies,
        within_gb_s=within,
        between_gb_s=between,
        write_mb_s=disk.write_mb_s,
        read_mb_s=disk.read_mb_s,
        shards_mb_s=disk.shards_mb_s,
        disk_free_gib=shutil.disk_usage(_existing(config.run.path)).free / 2**30,
        disk_needed_gib=_needed_bytes(config) / 2**30 if check_room else 0.0,
        clock=clock,
        ecc_errors=ecc,
        clock_mhz=mhz,
        versions=_versions(),
        run_error=disk.run_error,
        shards_error=disk.shards_error,
    )


# --- the device -----------------------------------------------------------------------------------


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Shortest of a few runs, after one that does not count."""
    seconds_of(work, device)
    return min(seconds_of(work, device) for _ in range(_REPEATS))


def _host_to_device_rate(device: torch.device) -> float | None:
    """GB/s from pinned memory; None on CPU."""
    if device.type == "cpu":
        return None
    host = torch.empty(256 << 20, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=device)
    return host.numel() / _best_seconds(lambda: there.copy_(host, non_blocking=True), device) / 1e9


def _free_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return float(fields["MemAvailable"].split()[0]) * 1024


def _gpu_facts(world: World) -> tuple[int | None, int | None]:
    """Uncorrected ECC errors since the last reset,
    and the highest clock in MHz that is allowed now.
    """
    if world.device.type == "cpu" or shutil.which("nvidia-smi") is None:
        return None, None
    gpu = str(torch.cuda.get_device_properties(world.device).uuid)
    query = "--query-gpu=ecc.errors.uncorrected.volatile.total,clocks.max.sm"
    command = [
        "nvidia-smi",
        f"--id=GPU-{gpu.removeprefix('GPU-')}",
        query,
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None, None
    values = [part.strip() for part in done.stdout.split(",")]
    numbers = [int(value) if value.isdigit() else None for value in values]
    if len(numbers) == 2:
        return (numbers[0], numbers[1])
    return (None, None)


# --- the network ----------------------------------------------------------------------------------


def _payload(device: torch.device) -> torch.Tensor:
    return torch.zeros(
        (64 << 20) if device.type == "cuda" else (1 << 20), device=device
    )  # 256 MiB, 4 MiB


def _all_reduce_rate(world: World, group: dist.ProcessGroup | None, size: int) -> float | None:
    """Bus bandwidth of an all-reduce over `size` ranks in GB/s, 2 (n - 1)
    / n bytes a byte; None for one rank.
    """
    if size < 2:
        return None
    payload = _payload(world.device)
    taken = _best_seconds(lambda: dist.all_reduce(payload, group=group), world.device)
    return 2 * (size - 1) / size * payload.nbytes / taken / 1e9


def _within_rate(world: World, node: str, places: Sequence[list[object]]) -> float | None:
    """All-reduce among the ranks of this node; the nodes measure at the same time."""
    rate = None
    for name in dict.fromkeys(str(place[0]) for place in places):
        ranks = [rank for rank, (other, _) in enumerate(places) if other == name]
        group = dist.new_group(ranks, timeout=_TIMEOUT)  # collective: every rank makes every group
        if name == node:
            rate = _all_reduce_rate(world, group, len(ranks))
    return rate


def _between_rate(world: World, node: str, places: Sequence[list[object]]) -> float | None:
    """Best exchange of this node's first rank with one of its two neighbours,
    so that a bad one spoils no good one.
    """
    heads = {str(name): rank for rank, (name, _) in reversed(list(enumerate(places)))}
    order = sorted(heads.values())
    # NCCL makes the communicator of a group in the first call on it, which all ranks of the group
    # must take part in: a first exchange between the heads alone would wait for the others for
    # ever.
    dist.all_reduce(torch.zeros(1, device=world.device))
    best = None
    for phase in (0, 1):
        barrier(world)
        if heads[node] != world.rank or len(order) < 2:
            continue
        place = order.index(world.rank)
        if (place - phase) % 2 == 0:
            other = place + 1
        else:
            other = place - 1
        if 0 <= other < len(order):
            rate = _exchange_rate(world, order[other])
            if best is None:
                best = rate
            else:
                best = max(best, rate)
    barrier(world)
    return best


def _exchange_rate(world: World, other: int) -> float:
    """GB/s in each direction of a simultaneous send and receive."""
    out = _payload(world.device)
    into = _payload(world.device)

    def exchange() -> None:
        operations = [dist.P2POp(dist.isend, out, other), dist.P2POp(dist.irecv, into, other)]
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    return out.nbytes / _best_seconds(exchange, world.device) / 1e9


# --- disks and software ---------------------------------------------------------------------------


def _existing(path: Path) -> Path:
    """`path`, or its nearest parent that is there already."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


@dataclass
class _Disk:
    """Rates of the run directory and of the shards in MB/s,
    as one node sees them, and what went wrong instead.
    """

    write_mb_s: float | None = None
    read_mb_s: float | None = None
    shards_mb_s: float | None = None
    run_error: str | None = None
    shards_error: str | None = None


def _measure_disk(config: Config, world: World, nodes: int) -> _Disk:
    disk = _Disk()
    _try_run_directory(_existing(config.run.path), world, nodes, disk)
    try:
        tars = sorted(Path(config.data.shards).rglob("*.tar"))
        disk.shards_mb_s = _read_rate(tars[0])
    except IndexError:
        disk.shards_error = f"shards: there are none in {config.data.shards}"
    except OSError as error:
        disk.shards_error = f"shards: cannot read {config.data.shards}: {error.strerror}"
    return disk


def _try_run_directory(folder: Path, world: World, nodes: int, disk: _Disk) -> None:
    """Write a file and read it again;
    all nodes together take a quarter of the free space at most.
    """
    file = folder / f".preflight-{os.environ.get('SLURM_JOB_ID', os.getpid())}-{world.rank}"
    size = max(1, min(_DISK_BYTES, shutil.disk_usage(folder).free // (4 * nodes)))
    try:
        content = os.urandom(size)
        start = time.perf_counter()
        with file.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        taken = time.perf_counter() - start
        if size >= _TIMED_BYTES:
            disk.write_mb_s = size / taken / 1e6
        else:
            disk.write_mb_s = None
        disk.read_mb_s = _read_rate(file)
    except OSError as error:
        disk.run_error = (
            f"{folder}: the run directory cannot be written: {reason(error)}{advice(error)}"
        )
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _needed_bytes(config: Config) -> int:
    """What the checkpoints of this run will take beside those that are there;
    nothing where that is not known.
    """
    try:
        vocabulary = Manifest.load(Path(config.data.shards)).vocab_size
    except UserError:  # said of the shards
        return 0
    return room_to_come(config, vocabulary, len(RunDir(config.run.path).complete_checkpoints()))


def _read_rate(file: Path) -> float | None:
    """MB/s of reading the first 32 MiB;
    None where there is too little to time, and opening the file is all.
    """
    with file.open("rb") as source:
        if hasattr(os, "posix_fadvise"):  # from the disk, not from this node's memory
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        size = len(source.read(_DISK_BYTES))
    taken = max(time.perf_counter() - start, 1e-9)
    if size >= _TIMED_BYTES:
        return size / taken / 1e6
    return None


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


# --- the command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """One rank of the preflight; rank 0 prints the table and writes the list of bad nodes."""
    parser = argparse.ArgumentParser(
        prog="python -m electra_dist.measure.preflight",
        description=(__doc__ or "").split("\n\n")[0],
    )
    parser.add_argument("config", help="configuration file (YAML)")
    parser.add_argument(
        "--bad-nodes", type=Path, metavar="FILE", help="write the names of the bad nodes here"
    )
    parser.add_argument(
        "--ignore-room",
        action="store_true",
        help="pass when the checkpoints will not fit on the disk",
    )
    given = parser.parse_args(arguments)
    try:
        config = configuration.load(given.config)
        world, verdict = preflight(config, dict(os.environ), check_room=not given.ignore_room)
        if not world.is_main:
            return EXIT_OK
        print(verdict.table(), flush=True)
        return report(verdict, given.bad_nodes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    leave(main())
