"""What the machine has and can do: a command's device,
the matrix-product rate that utilisation is measured against.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from electra_dist.errors import UserError

_CPU_SIZE = 1024
_CUDA_SIZE = 8192
_PRODUCTS = 5
#: A GPU that idles takes some tenths of a second to raise its clock.
WARM_UP_SECONDS = 0.5


def device_of_command(wanted: str | None) -> torch.device:
    """The device `wanted`, by default the first GPU where there is one;
    raises `UserError` when it is not there.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("`device` cuda: PyTorch sees no GPU here; leave it out to use the CPU")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


@dataclass(frozen=True)
class ProductRate:
    """Floating-point operations a second of a large square matrix product on random data.

    cold  the first few products, on a device that had nothing to do before: its clock may still be
          low
    warm  after `WARM_UP_SECONDS` of them, which is what training meets
    """

    cold: float
    warm: float


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The warm `ProductRate`, the denominator of MFU:
    what this device reached just now, not a datasheet.
    """
    return product_rate(device, dtype).warm


def product_rate(device: torch.device, dtype: torch.dtype) -> ProductRate:
    """Measure `device`, in about a second:
    the best of a few products before and after it is warm.
    """
    if device.type == "cuda":
        size = _CUDA_SIZE
    else:
        size = _CPU_SIZE
    generator = torch.Generator(device=device).manual_seed(0)
    a = torch.randn(size, size, generator=generator, device=device).to(dtype)
    b = torch.randn(size, size, generator=generator, device=device).to(dtype)
    torch.mm(a, b)  # what is loaded and chosen once in a process

    def rate() -> float:
        return (
            2.0
            * size**3
            / min(seconds_of(lambda: torch.mm(a, b), device) for _ in range(_PRODUCTS))
        )

    cold = rate()
    until = time.perf_counter() + WARM_UP_SECONDS
    while time.perf_counter() < until:
        # back to back, as in training
        seconds_of(lambda: [torch.mm(a, b) for _ in range(_PRODUCTS)], device)
    return ProductRate(cold, rate())


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long `device` needs for `work`, once; waits for what it had to do before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process has held so far: of a GPU what PyTorch has allocated there, on a
    CPU its resident set.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return peak
    return 1024 * peak
