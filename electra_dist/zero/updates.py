"""How far the last step moved the weights of each network, relative to their size.

Comes in: engines after a step. Goes out: the ratio of two norms, exact at every ZeRO stage. No
weight is kept from before the step: AdamW's change follows from the moments and the learning rate
that it was made with (arXiv 1711.05101, algorithm 2). With w the weights and m and v the moments
after step t, a the learning rate, d the weight decay, and r = sqrt(1 - b2^t):

    adam   = a r / (1 - b1^t) * m / (sqrt(v) + eps r)
    change = -(adam + a d w) / (1 - a d)

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

#: Elements of a batch: its temporary tensors hold twice as many.
_BATCH_ELEMENTS = 2**22


class _Adam(NamedTuple):
    """The numbers of the formula above; the first two are () fp32, where the moments lie.

    factor   a r / (1 - b1^t)
    epsilon  eps r
    decay    a d
    """

    factor: Tensor
    epsilon: Tensor
    decay: float


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
    root = (1 - optim.beta2**step).sqrt()
    exempt = _Adam(lr * root / (1 - optim.beta1**step), optim.epsilon * root, decay=0.0)
    decayed = exempt._replace(decay=lr * optim.weight_decay)

    total = torch.zeros(2, dtype=torch.float64, device=step.device)
    for batch in _batches([f for f in fragments if no_decay(f.name)]):
        total += _squares_of(batch, exempt)
    for batch in _batches([f for f in fragments if not no_decay(f.name)]):
        total += _squares_of(batch, decayed)
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
    torch._foreach_add_(denominators, adam.epsilon)
    changes = torch._foreach_div(first, denominators)
    torch._foreach_mul_(changes, adam.factor)
    if adam.decay:
        torch._foreach_add_(changes, weights, alpha=adam.decay)
    change = _square(list(changes)) / (1 - adam.decay) ** 2
    return torch.stack([change, _square(weights)])


def _square(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).double().square().sum()
