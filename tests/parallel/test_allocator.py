"""On a CPU a step takes its memory from what the step before has freed,
instead of mapping it anew.
"""

from __future__ import annotations

import os
import subprocess
import sys

TENSOR_BYTES, TIMES, PAGE = 16 * 2**20, 20, 4096

CODE = f"""
import resource, torch
from electra_dist.parallel.allocator import tune_allocator

tune_allocator(torch.device("cpu"))
for _ in range({TIMES}):  # the heap grows until a freed block is found again
    torch.ones({TENSOR_BYTES // 4})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    torch.ones({TENSOR_BYTES // 4})
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(**variables: str) -> int:
    """Of allocating one large tensor again and again, on pages of 4 KiB."""
    env = os.environ | {"THP_MEM_ALLOC_ENABLE": "0"} | variables
    return int(subprocess.check_output([sys.executable, "-c", CODE], env=env, text=True))


def test_freed_memory_is_used_again() -> None:
    assert page_faults() < TENSOR_BYTES // PAGE


def test_what_the_environment_says_about_memory_stands() -> None:
    assert page_faults(MALLOC_MMAP_THRESHOLD_="131072") > TIMES * TENSOR_BYTES // PAGE / 2
