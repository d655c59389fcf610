"""How far the last step moved the weights of each network, relative to their size.

Comes in: engines after a step. Goes out: the ratio of two norms, exact at every ZeRO stage. No
weight is kept from before the step: AdamW's change follows from the moments and the learning rate
that it was made with (arXiv 1711.05101, algorithm 2; with w the weights before, m and v the moments
after, t the step, a the learning rate, d the weight decay):

    change = -a m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) - a d w

Each rank computes its own share, a few million elements at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from electra_dist.config import Config, OptimConfig
from electra_dist.model.parameters import no_decay
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.zero.engine import Engine
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import Fragment, last_step, local_fragments, own_share

#: Elements of a batch: its temporary tensors hold three times as many.
_BATCH_ELEMENTS = 2**22


class _Adam(NamedTuple):
    """What one AdamW has stepped with.

    lr, weight_decay, epsilon   of the last step
    step_size, root             () fp32: lr / (1 - b1^t), sqrt(1 - b2^t)
    """

    lr: float
    weight_decay: float
    epsilon: float
    step_size: Tensor
    root: Tensor


@torch.no_grad()
def update_ratios(engines: Engines, config: Config, skipped: Tensor) -> Tensor:
    """(2,) fp64 on the device: norm of the last step's change over the norm of the weights after
    it; 0 where that step was `skipped`, a bool scalar. Collective.
    """
    world = engines.world
    squares = []
    for network, engine in engines:
        fragments = own_share(
            local_fragments(engine, world.rank), engine, world.rank, world.world_size
        )
        optim = config.optimizer(network)
        squares.append(_squares(engine, fragments, optim).to(world.device))
    changes_n, weights_n = all_reduce_sum(torch.stack(squares)).unbind(dim=1)
    ratios_n = (changes_n / weights_n).sqrt()
    return torch.where(skipped, 0.0, ratios_n)


def _squares(engine: Engine, fragments: list[Fragment], optim: OptimConfig) -> Tensor:
    """(2,) fp64: squared norms of this rank's share of the change, and of its weights."""
    step = last_step(engine)
    lr = engine.optimizer.param_groups[0]["lr"]
    total = torch.zeros(2, dtype=torch.float64, device=step.device)
    for decays in (True, False):
        adam = _Adam(
            lr,
            optim.weight_decay if decays else 0.0,
            optim.epsilon,
            step_size=lr / (1 - optim.beta1**step),
            root=(1 - optim.beta2**step).sqrt(),
        )
        chosen = [f for f in fragments if no_decay(f.name) != decays]
        for batch in _batches(chosen):
            total += _squares_of(batch, adam)
    return total


def _batches(fragments: list[Fragment]) -> Iterator[list[Fragment]]:
    """All of them, cut and put together to a limited number of elements."""
    batch: list[Fragment] = []
    elements = 0
    for fragment in fragments:
        stop = fragment.start + fragment.length
        for start in range(fragment.start, stop, _BATCH_ELEMENTS):
            piece = fragment.narrow(start, min(start + _BATCH_ELEMENTS, stop))
            if elements + piece.length > _BATCH_ELEMENTS:
                yield batch
                batch = []
                elements = 0
            batch.append(piece)
            elements += piece.length
    if batch:
        yield batch


def _squares_of(batch: list[Fragment], adam: _Adam) -> Tensor:
    weights = [fragment.tensors["weight"] for fragment in batch]
    first = [fragment.tensors["exp_avg"] for fragment in batch]
    second = [fragment.tensors["exp_avg_sq"] for fragment in batch]

    denominators = torch._foreach_sqrt(second)
    torch._foreach_div_(denominators, adam.root)
    torch._foreach_add_(denominators, adam.epsilon)
    changes = torch._foreach_div(first, denominators)
    torch._foreach_mul_(changes, adam.step_size)
    if adam.weight_decay:
        decay = adam.lr * adam.weight_decay
        before = torch._foreach_add(weights, changes)
        torch._foreach_div_(before, 1 - decay)
        torch._foreach_add_(changes, before, alpha=decay)
    return torch.stack([_square(list(changes)), _square(weights)])


def _square(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).double().square().sum()
