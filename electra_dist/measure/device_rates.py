"""What one rank's own device gives: copies from the host, free memory, the state of a GPU.

Comes in: a device. Goes out: rates and figures of the preflight. `best_seconds` is how everything
on a device is timed there.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from electra_dist.parallel.hardware import seconds_of
from electra_dist.parallel.world import World

_REPEATS = 3


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Shortest of a few runs, after one that does not count."""
    seconds_of(work, device)
    return min(seconds_of(work, device) for _ in range(_REPEATS))


def host_to_device_rate(device: torch.device) -> float | None:
    """GB/s from pinned memory; None on CPU."""
    if device.type == "cpu":
        return None
    host = torch.empty(256 << 20, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=device)
    return host.numel() / best_seconds(lambda: there.copy_(host, non_blocking=True), device) / 1e9


def free_memory(device: torch.device) -> float:
    """Bytes of the GPU that are free; of the host where the device is the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return float(fields["MemAvailable"].split()[0]) * 1024


def gpu_state(world: World) -> tuple[int | None, int | None]:
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
