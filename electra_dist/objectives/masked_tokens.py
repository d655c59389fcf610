"""Masked-token cross-entropy: the generator names the original token at each masked position.

The loss is that of the masked language model of BERT (arXiv 1810.04805, section 3.1), which ELECTRA
trains its generator with.

Letters: M masked slots.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from electra_dist.objectives.interface import Objective, Tally
from electra_dist.objectives.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from electra_dist.objectives.views import Filled, Seen

_BERT = "Devlin et al. 2019, arXiv 1810.04805, section 3.1"

LOSS = Metric(
    "loss/generator",
    "nats per masked token",
    "cross-entropy of the generator",
    best="min",
    held_out=True,
    formula="mean of -ln p(original token) over the masked positions of all ranks",
    healthy="begins near the entropy of the unigrams where the output bias starts there, else near"
    " ln(vocabulary); falls, fast at first",
    source=_BERT,
)
ACCURACY = Metric(
    "generator/accuracy",
    "fraction",
    "masked tokens whose most probable entry is right",
    best="max",
    held_out=True,
    formula="masked positions where no entry has a larger logit than the original token / masked"
    " positions",
    healthy="rises; well below what a masked language model of the discriminator's size reaches",
    source=_BERT,
)
TOP5 = Metric(
    "generator/top5",
    "fraction",
    "masked tokens whose original is among the five most probable entries",
    best="max",
    held_out=True,
    formula="masked positions where fewer than 5 entries have a larger logit than the original"
    " token / masked positions",
    healthy="rises; never below `generator/accuracy`",
    source="top-5 accuracy as in Russakovsky et al. 2015, arXiv 1409.0575, section 4.1",
)
PERPLEXITY = Metric(
    "generator/perplexity",
    "tokens",
    "equally probable tokens that the generator is as unsure about",
    ",.1f",
    best="min",
    held_out=True,
    formula="exp(`loss/generator`)",
    healthy="falls; at most the size of the vocabulary after the first steps",
    source="Jelinek et al. 1977, doi 10.1121/1.2016299; on masked positions alone",
)


def _loss_sum(filled: Filled) -> Tensor:
    return (filled.nll_m * filled.weights_m).sum()


def _observe(seen: Seen) -> dict[str, Tensor]:
    return {"correct": seen.correct, "in_top5": seen.in_top5}


def _scores(tally: Tally) -> dict[Metric, float]:
    return {
        ACCURACY: tally.values["correct"] / tally.divisor,
        TOP5: tally.values["in_top5"] / tally.divisor,
        PERPLEXITY: _perplexity(tally.values["generator_loss_sum"] / tally.divisor),
    }


def _perplexity(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


MASKED_TOKENS = Objective(
    name="masked tokens",
    network="generator",
    count="masked_count",
    weight="train.generator_weight",
    called="the generator's loss",
    choices=None,
    loss=LOSS,
    metrics=(ACCURACY, TOP5, PERPLEXITY),
    total="generator_loss_sum",
    sums={"correct": (), "in_top5": ()},
    loss_sum=_loss_sum,
    observe=_observe,
    scores=_scores,
)
