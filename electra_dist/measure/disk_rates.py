"""Rates of the disks that one node sees: of the run directory, and of the shards.

Comes in: a configuration. Goes out: a `Disk`, with what went wrong in place of a rate; and the room
that the checkpoints of the run need.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from electra_dist.config import Config
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.shards.stores.remote import is_remote
from electra_dist.errors import UserError
from electra_dist.files.writing import advice, reason
from electra_dist.parallel.world import World
from electra_dist.plan import room_to_come
from electra_dist.runs.directory import RunDir

_DISK_BYTES = 32 << 20
_TIMED_BYTES = 1 << 20


@dataclass
class Disk:
    """Rates of the run directory and of the shards in MB/s,
    as one node sees them, and what went wrong instead.
    """

    write_mb_s: float | None = None
    read_mb_s: float | None = None
    shards_mb_s: float | None = None
    run_error: str | None = None
    shards_error: str | None = None


def measure_disk(config: Config, world: World, nodes: int, environment: Mapping[str, str]) -> Disk:
    """Write and read in the run directory, read the first shard; `nodes` measure at once.

    `environment` names the Slurm job, so that two jobs do not write the same file.
    """
    disk = Disk()
    job = environment.get("SLURM_JOB_ID", str(os.getpid()))
    file = nearest_existing(config.run.path) / f".preflight-{job}-{world.rank}"
    _try_run_directory(file, nodes, disk)
    if is_remote(config.data.shards):
        disk.shards_error = f"shards: those at a URL are not timed ({config.data.shards})"
        return disk
    try:
        tars = sorted(Path(config.data.shards).rglob("*.tar"))
        disk.shards_mb_s = _read_rate(tars[0])
    except IndexError:
        disk.shards_error = f"shards: there are none in {config.data.shards}"
    except OSError as error:
        disk.shards_error = f"shards: cannot read {config.data.shards}: {error.strerror}"
    return disk


def _try_run_directory(file: Path, nodes: int, disk: Disk) -> None:
    """Write `file` and read it again;
    all nodes together take a quarter of the free space at most.
    """
    folder = file.parent
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


def needed_bytes(config: Config) -> int:
    """What the checkpoints of this run will take beside those that are there;
    nothing where that is not known.
    """
    try:
        vocabulary = Manifest.of_run(config).vocab_size
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


def nearest_existing(path: Path) -> Path:
    """`path`, or its nearest parent that is there already."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
