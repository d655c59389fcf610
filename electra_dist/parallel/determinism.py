"""`train.deterministic`: sums in a fixed order, so that the same steps on equal devices are equal
to the bit.

On a CPU they are anyway. On CUDA PyTorch takes its deterministic kernels, cuBLAS gets a workspace
of its own, and attention is our kernel (`model.attention`), whose backward uses no atomic
additions. Where an operation has no such kernel, PyTorch refuses it in the first step at the
latest, and the run ends with a `UserError` that names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from electra_dist.errors import UserError

#: What PyTorch says of an operation that it refuses.
_REFUSAL = re.compile(
    r"(\S+) does not have a deterministic implementation|this operation is not deterministic"
    r" because"
)
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACES = (":4096:8", ":16:8")


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Around training, before anything is computed; changes nothing when it is not wanted."""
    if not wanted:
        yield
        return
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled()
    filled = settings.fill_uninitialized_memory
    if os.environ.get(_WORKSPACE) not in _FIXED_WORKSPACES:
        os.environ[_WORKSPACE] = _FIXED_WORKSPACES[0]
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = (
        False  # a search for errors, which costs a pass over memory
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled


@contextmanager
def refusals_explained() -> Iterator[None]:
    """Around what computes: an operation that PyTorch refuses because
    it adds in no fixed order is a `UserError`.
    """
    try:
        yield
    except Exception as error:  # the compiler has exceptions of its own around it
        explained = refusal(error)
        if explained is None:
            raise
        raise explained from error


def refusal(error: BaseException) -> UserError | None:
    """What to say where `error`, or what caused it, is such a refusal."""
    cause: BaseException | None = error
    while cause is not None:
        found = _REFUSAL.search(str(cause))
        if found:
            name = found[1] or "an operation"
            return UserError(
                f"train.deterministic = true: {name} has no kernel on this device that adds in a"
                f" fixed order (torch {torch.__version__}); choose another backend for it where"
                " there is one (model.attention=triton, model.generator_head=chunked), or train"
                " with train.deterministic=false (--debug shows where it is)"
            )
        cause = cause.__cause__
    return None
