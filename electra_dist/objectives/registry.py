"""The objectives that a run is trained with."""

from __future__ import annotations

from electra_dist.config import NETWORKS, Network
from electra_dist.objectives.interface import Objective
from electra_dist.objectives.masked_tokens import MASKED_TOKENS
from electra_dist.objectives.replaced_tokens import REPLACED_TOKENS

#: The registration of each, by its name.
OBJECTIVES: dict[str, Objective] = {
    MASKED_TOKENS.name: MASKED_TOKENS,
    REPLACED_TOKENS.name: REPLACED_TOKENS,
}


def objectives() -> tuple[Objective, ...]:
    """All of them, those of the generator first: the order of every tensor of losses."""
    return tuple(objective for network in NETWORKS for objective in objectives_of(network))


def objectives_of(network: Network) -> tuple[Objective, ...]:
    """Those that `network` computes, in the order of their registration."""
    return tuple(o for o in OBJECTIVES.values() if o.network == network)
