"""What the machine has and can do: a command's device, the matrix-product rate that utilisation is measured against."""

from __future__ import annotations

import time

import torch

from electra_dist.errors import UserError

_CPU_SIZE, _CUDA_SIZE = 1024, 8192


def device_of_command(wanted: str | None) -> torch.device:
    """What `--device` says, by default the first GPU where there is one; raises `UserError` when it is not there."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("--device cuda: PyTorch sees no GPU here; leave it out to use the CPU")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large square matrix product on random data, best of a few.

    The denominator of MFU here: what this device reached just now, not a datasheet. Takes well under a second.
    """
    size = _CUDA_SIZE if device.type == "cuda" else _CPU_SIZE
    generator = torch.Generator(device=device).manual_seed(0)
    a = torch.randn(size, size, generator=generator, device=device).to(dtype)
    b = torch.randn(size, size, generator=generator, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
