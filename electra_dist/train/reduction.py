"""Reduce-scatter of gradients, with the same work for the host at any world size.

DeepSpeed's `reduce_scatter_coalesced` (0.19) cuts every gradient into one slice for each rank and joins the slices
again, from Python: at 1,024 ranks that alone takes longer than a micro-batch of ELECTRA-base. The same layout is a
matrix: every gradient is a row for each rank, and rows next to each other are the buffer. `install` puts ours in its
place, where ZeRO-3 looks for it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from electra_dist.errors import UserError


@functools.cache
def install() -> None:
    """Let DeepSpeed's ZeRO-3 reduce by `reduce_scatter_coalesced`; raises `UserError` where it would not be found."""
    from deepspeed.runtime.zero import stage3

    if not hasattr(stage3, "reduce_scatter_coalesced"):
        raise UserError("this version of deepspeed has no stage3.reduce_scatter_coalesced; install one from 0.19")
    stage3.reduce_scatter_coalesced = reduce_scatter_coalesced


@torch.no_grad()
def reduce_scatter_coalesced(tensors: list[Tensor], group: Any = None) -> list[Tensor]:
    """The mean of each tensor over the ranks of `group`: of rank r elements [r * k, r * k + k), fewer at the end.

    k is the tensor's size divided by the number of ranks, rounded up. A single tensor may be changed in place.
    Collective.
    """
    from deepspeed import comm

    rank, world_size = comm.get_rank(group), comm.get_world_size(group)
    rows = [_rows(tensor.reshape(-1), world_size) for tensor in tensors]
    buffer = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)  # (ranks, elements of a rank)
    buffer.div_(world_size)
    own = buffer[rank]
    comm.reduce_scatter_fn(own, buffer.view(-1), group=group)

    parts = own.split([row.shape[1] for row in rows])
    return [_without_padding(part, tensor.numel(), rank) for part, tensor in zip(parts, tensors, strict=True)]


def _rows(flat: Tensor, count: int) -> Tensor:
    """`flat` as (count, elements), the last ones padded with zeros."""
    padding = -flat.numel() % count
    padded = F.pad(flat, (0, padding)) if padding else flat
    return padded.view(count, -1)


def _without_padding(part: Tensor, elements: int, rank: int) -> Tensor:
    size = part.numel()
    return part[: max(0, min(size, elements - rank * size))]
