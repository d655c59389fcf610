"""Our Triton kernels: attention over packed documents, and the fused generator head.

Importing this package imports neither Triton nor the kernels; `available` says whether they can
run.
"""

from __future__ import annotations

import importlib.util
import os

import torch

__all__ = [
    "LARGEST_GRID_Y",
    "LARGE_SHARED_MEMORY",
    "TOP",
    "ahead",
    "available",
    "flash_attention",
    "generator_head",
]


#: The generator's target counts as found among so many entries (`head.HeadOutput.in_top5_m`).
TOP = 5
#: Compute capabilities with at least 160 KiB of shared memory a block; the others have about 100.
LARGE_SHARED_MEMORY = ((8, 0), (9, 0), (10, 0), (10, 3))
#: Programs on the second and third axis of a launch (CUDA programming guide);
#: the first has room for 2**31 - 1.
LARGEST_GRID_Y = 65_535


def available(device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> str | None:
    """Why the Triton kernels cannot run on `device` (default: CUDA where there is one), or None
    where they can.

    On the CPU they run only in Triton's interpreter (TRITON_INTERPRET=1 before Triton is imported),
    which is for tests; fp32 only, because its bf16 is wrong.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        if dtype == torch.float32:
            return None
        return f"Triton's interpreter computes correctly in fp32 only, found {dtype}"
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda":
        return f"Triton kernels need a CUDA device, this one is {device.type!r}"
    return None
