"""Where this process stands: for the watchdog, which names the rank that the others wait for.

In: nothing. Out: the innermost line of the training thread, the number of collectives begun, a file
with the stacks of all threads. Called from a thread beside training, and never in its way.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch.distributed as dist

from electra_dist.parallel import signs
from electra_dist.runs.directory import RunDir
from electra_dist.train.watch.hang import Stand


def collectives() -> int:
    """Collectives that this rank has begun, over all groups; 0 where that is not known."""
    total = 0
    try:
        for group in list(dist.distributed_c10d._world.pg_map):
            for device in group._device_types:
                backend: Any = group._get_backend(device)
                total += backend._get_sequence_number_for_group()
    except Exception:
        return 0
    return total


def stand_of(thread: int) -> Stand:
    """Where a thread stands: its innermost call,
    and the innermost line of this project that led there.
    """
    frames = [frame for frame, _ in traceback.walk_stack(sys._current_frames().get(thread))]
    if not frames:
        return Stand("", False)
    own = next((frame for frame in frames if _is_ours(frame)), None)
    where = f"in {frames[0].f_code.co_name}"
    if own is not None:
        where += f", from {Path(own.f_code.co_filename).name}:{own.f_lineno}"
    near = frames[:6]
    waits = any("torch/distributed" in frame.f_code.co_filename for frame in near)
    return Stand(where, waits or frames[0].f_code.co_name in ("synchronize", "wait"))


def _is_ours(frame: FrameType) -> bool:
    return "electra_dist" in Path(frame.f_code.co_filename).parts


def write_stacks(path: Path, about: str, environment: Mapping[str, str]) -> None:
    """`about` and the Python stacks of all threads, into a new file;
    raises `OSError` when it cannot be written.

    `environment` may say where NCCL's collectives are recorded (TORCH_FR_DUMP_TEMP_FILE).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(about)
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
    _write_flight_record(path, environment.get("TORCH_FR_DUMP_TEMP_FILE"))


def _write_flight_record(path: Path, prefix: str | None) -> None:
    """What torch has recorded of NCCL's collectives, as its own time-out would leave it;
    nothing without NCCL.
    """
    from torch._C import _distributed_c10d

    record: Callable[..., bytes] | None = getattr(_distributed_c10d, "_dump_nccl_trace", None)
    if record is not None:
        rank = path.stem.rpartition("-")[2]
        if prefix:
            target = Path(f"{prefix}{rank}")
        else:
            target = path.with_suffix(".nccl")
        target.write_bytes(record())


def stacks_file(run: RunDir, stamp: str, rank: int | str) -> Path:
    """Where the stacks of a rank lie after the hang of `stamp`; "*" for all ranks."""
    return run.logs / f"hang-{stamp}-rank-{rank}.txt"


def about(rank: int, host: str) -> str:
    """The first lines of a file with stacks: what this process was doing."""
    doing = signs.doing()
    detail = ""
    if doing.detail:
        detail = f", {doing.detail}"
    return (
        f"rank {rank} on {host}, process {os.getpid()}, phase {doing.phase}, step"
        f" {doing.step}{detail}, {collectives()} collectives begun\n"
        "\n"
    )
