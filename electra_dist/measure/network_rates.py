"""Rates of the network between ranks: all-reduce of some of them, exchange between nodes.

Comes in: a world whose process group is open, and which node each rank is on. Goes out: GB/s.
Everything here is collective: all ranks call it in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from electra_dist.measure.device_rates import best_seconds
from electra_dist.parallel.collectives import barrier
from electra_dist.parallel.world import World

#: For the ranks to find each other, and for each collective.
TIMEOUT = timedelta(seconds=120)


def _payload(device: torch.device) -> torch.Tensor:
    """256 MiB for a GPU, 4 MiB for a CPU."""
    if device.type == "cuda":
        elements = 64 << 20
    else:
        elements = 1 << 20
    return torch.zeros(elements, device=device)


def all_reduce_rate(world: World, group: dist.ProcessGroup | None, size: int) -> float | None:
    """Bus bandwidth of an all-reduce over `size` ranks in GB/s, 2 (n - 1)
    / n bytes a byte; None for one rank.
    """
    if size < 2:
        return None
    payload = _payload(world.device)
    taken = best_seconds(lambda: dist.all_reduce(payload, group=group), world.device)
    return 2 * (size - 1) / size * payload.nbytes / taken / 1e9


def within_rate(world: World, node: str, places: Sequence[list[object]]) -> float | None:
    """All-reduce among the ranks of this node; the nodes measure at the same time."""
    rate = None
    for name in dict.fromkeys(str(place[0]) for place in places):
        ranks = [rank for rank, (other, _) in enumerate(places) if other == name]
        group = dist.new_group(ranks, timeout=TIMEOUT)  # collective: every rank makes every group
        if name == node:
            rate = all_reduce_rate(world, group, len(ranks))
    return rate


def between_rate(world: World, node: str, places: Sequence[list[object]]) -> float | None:
    """Best exchange of this node's first rank with one of its two neighbours,
    so that a bad one spoils no good one.
    """
    heads = {str(name): rank for rank, (name, _) in reversed(list(enumerate(places)))}
    order = sorted(heads.values())
    # NCCL makes the communicator of a group in the first call on it, which all ranks of the group
    # must take part in: a first exchange between the heads alone would wait for the others for
    # ever.
    dist.all_reduce(torch.zeros(1, device=world.device))
    best = None
    for phase in (0, 1):
        barrier(world)
        if heads[node] != world.rank or len(order) < 2:
            continue
        place = order.index(world.rank)
        if (place - phase) % 2 == 0:
            other = place + 1
        else:
            other = place - 1
        if 0 <= other < len(order):
            rate = _exchange_rate(world, order[other])
            if best is None:
                best = rate
            else:
                best = max(best, rate)
    barrier(world)
    return best


def _exchange_rate(world: World, other: int) -> float:
    """GB/s in each direction of a simultaneous send and receive."""
    out = _payload(world.device)
    into = _payload(world.device)

    def exchange() -> None:
        operations = [dist.P2POp(dist.isend, out, other), dist.P2POp(dist.irecv, into, other)]
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    return out.nbytes / best_seconds(exchange, world.device) / 1e9
