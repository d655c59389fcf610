"""Memory of CPU tensors, cheap to get again.

glibc maps a large block anew each time and gives it back, so that every step of a training pays a
page fault for each 4 KiB of its activations. Here freed blocks stay with the process, whose peak
does not rise, and what is mapped lies on huge pages.
"""

from __future__ import annotations

import ctypes
import os

import torch

#: Of glibc's <malloc.h>: M_MMAP_THRESHOLD at its largest allowed value,
#: M_TRIM_THRESHOLD, M_TOP_PAD.
_MALLOC_OPTIONS = {-3: 32 * 2**20, -1: 2**31 - 1, -2: 64 * 2**20}


def tune_allocator(device: torch.device) -> None:
    """Keep freed memory in this process if it trains on a CPU; call it before the first large
    tensor.

    Another C library than glibc is left as it is, and so is what the environment has set
    (`MALLOC_...`, `THP_MEM_ALLOC_ENABLE`).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it at its first large tensor
    if device.type != "cpu" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _MALLOC_OPTIONS.items():
            mallopt(option, value)
