"""Masked-token cross-entropy: the generator names the original token at each masked position.

The loss is that of the masked language model of BERT (arXiv 1810.04805, section 3.1), which ELECTRA
trains its generator with.

Letters: M masked slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from electra_dist.objectives.interface import Objective, Tally
from electra_dist.objectives.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from electra_dist.objectives.views import Filled, Seen

LOSS = Metric(
    "loss/generator",
    "nats per masked token",
    "cross-entropy of the generator",
    best="min",
    held_out=True,
)
ACCURACY = Metric(
    "generator/accuracy",
    "fraction",
    "masked tokens whose most probable entry is right",
    best="max",
    held_out=True,
)


def _loss_sum(filled: Filled) -> Tensor:
    return (filled.nll_m * filled.weights_m).sum()


def _observe(seen: Seen) -> dict[str, Tensor]:
    return {"correct": seen.correct}


def _scores(tally: Tally) -> dict[Metric, float]:
    return {ACCURACY: tally.values["correct"] / tally.divisor}


MASKED_TOKENS = Objective(
    name="masked tokens",
    network="generator",
    count="masked_count",
    weight="train.generator_weight",
    called="the generator's loss",
    choices=None,
    loss=LOSS,
    metrics=(ACCURACY,),
    total="generator_loss_sum",
    sums={"correct": ()},
    loss_sum=_loss_sum,
    observe=_observe,
    scores=_scores,
)
