"""Reducing gradients over the ranks: as much work for the host at any world size, and beside the
backward.

DeepSpeed's `reduce_scatter_coalesced` (0.19) cuts every gradient into one slice for each rank and
joins the slices again, from Python: at 1,024 ranks that alone takes longer than a micro-batch of
ELECTRA-base. The same arrangement is a matrix: every gradient is a row for each rank, and rows next
to each other are the buffer. `compatibility.reduce_by_rows` puts ours in its place, where ZeRO-3
looks for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from electra_dist.zero.engine import Engine


@torch.no_grad()
def reduce_scatter_coalesced(tensors: list[Tensor], group: Any = None) -> list[Tensor]:
    """The mean of each tensor over the ranks of `group`: of rank r elements [r * k, r * k + k),
    fewer at the end.

    k is the tensor's size divided by the number of ranks, rounded up. A single tensor may be
    changed in place. Collective.
    """
    from deepspeed import comm

    rank = comm.get_rank(group)
    world_size = comm.get_world_size(group)
    rows = [_rows(tensor.reshape(-1), world_size) for tensor in tensors]
    # (ranks, elements of a rank)
    if len(rows) == 1:
        buffer = rows[0]
    else:
        buffer = torch.cat(rows, dim=1)
    buffer.div_(world_size)
    own = buffer[rank]
    comm.reduce_scatter_fn(own, buffer.view(-1), group=group)

    parts = own.split([row.shape[1] for row in rows])
    return [
        _without_padding(part, tensor.numel(), rank)
        for part, tensor in zip(parts, tensors, strict=True)
    ]


def _rows(flat: Tensor, count: int) -> Tensor:
    """`flat` as (count, elements), the last ones padded with zeros."""
    padding = -flat.numel() % count
    if padding:
        padded = F.pad(flat, (0, padding))
    else:
        padded = flat
    return padded.view(count, -1)


def _without_padding(part: Tensor, elements: int, rank: int) -> Tensor:
    size = part.numel()
    return part[: max(0, min(size, elements - rank * size))]


class OverlappedReduction:
    """Stage 1 in bf16: each gradient is reduced while the backward goes on, from when it is
    complete.

    DeepSpeed's `BF16_Optimizer` reduces all of them after the last backward, a copy of everything
    at a time, unless `compatibility.reduce_nothing` stops it. Here the fp32 gradient of a parameter
    is reduced in place as soon as the last micro-batch of a step has been added to it. Every rank
    meets them in the same order, that of its backward.
    """

    def __init__(self, engine: Engine, world_size: int, dtype: torch.dtype) -> None:
        self._engine = engine
        self._world_size = world_size
        self._dtype = dtype
        self._flying: list[tuple[Any, Tensor, Tensor]] = []
        self._begun: set[Tensor] = set()
        optimizer = engine.optimizer
        self._gradients: dict[Tensor, Tensor] = {}
        for parameters, gradients in zip(
            optimizer.bf16_groups, optimizer.fp32_groups_gradients, strict=True
        ):
            self._gradients |= dict(zip(parameters, gradients, strict=True))
        for parameter in self._gradients:
            # DeepSpeed's own hook, which adds the gradient to the fp32 one, was there first.
            parameter.register_post_accumulate_grad_hook(self._begin)

    @torch.no_grad()
    def _begin(self, parameter: Tensor) -> None:
        if not self._engine.is_gradient_accumulation_boundary():
            return
        gradient = self._gradients[parameter]
        gradient.mul_(1 / self._world_size)
        sent = gradient.to(self._dtype)
        self._flying.append((torch.distributed.all_reduce(sent, async_op=True), sent, gradient))
        self._begun.add(parameter)

    @torch.no_grad()
    def finish(self) -> None:
        """Wait for all of them, those that got no gradient in this step included; collective."""
        for parameter in self._gradients:
            if parameter not in self._begun:
                self._begin(parameter)
        for work, sent, gradient in self._flying:
            work.wait()
            if sent is not gradient:
                gradient.copy_(sent)
        self._flying.clear()
        self._begun.clear()
