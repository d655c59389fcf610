"""`train.deterministic`: sums in a fixed order, so that the same steps on equal devices are equal to the bit.

On a CPU they are anyway. On CUDA PyTorch takes its deterministic kernels (or says which operation has none), cuBLAS
gets a workspace of its own, and attention is our kernel (`model.attention`), whose backward uses no atomic additions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACES = (":4096:8", ":16:8")


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Around training, before anything is computed; changes nothing when it is not wanted."""
    if not wanted:
        yield
        return
    settings: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    if os.environ.get(_WORKSPACE) not in _FIXED_WORKSPACES:
        os.environ[_WORKSPACE] = _FIXED_WORKSPACES[0]
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # a search for errors, which costs a pass over memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled
