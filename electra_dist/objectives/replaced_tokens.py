"""Replaced-token detection: the discriminator says of every token whether it was replaced.

Binary cross-entropy over all real tokens, [CLS] and [SEP] included (ELECTRA, arXiv 2003.10555,
section 3.1).

Letters: B rows, L row length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from electra_dist.objectives.bins import BINS
from electra_dist.objectives.interface import Objective, Tally
from electra_dist.objectives.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from electra_dist.objectives.views import Judged, Seen

LOSS = Metric(
    "loss/discriminator",
    "nats per real token",
    "binary cross-entropy of the discriminator, before its weight",
    ".4f",
    best="min",
    held_out=True,
)
PRECISION = Metric(
    "discriminator/precision",
    "fraction",
    "of the tokens called replaced (logit above 0), those that are",
    ".2f",
    best="max",
    held_out=True,
)
RECALL = Metric(
    "discriminator/recall",
    "fraction",
    "of the replaced tokens, those called so",
    ".2f",
    best="max",
    held_out=True,
)
ACCURACY = Metric(
    "discriminator/accuracy",
    "fraction",
    'of all real tokens; "always original" already gives 1 - `replaced_fraction`',
    best="max",
    held_out=True,
)
AUC = Metric(
    "discriminator/auc",
    "probability",
    "that a replaced token has a larger logit than an original one; 0.5 is chance",
    best="max",
    held_out=True,
)
REPLACED_FRACTION = Metric(
    "discriminator/replaced_fraction",
    "fraction",
    "real tokens that the generator replaced with another",
    held_out=True,
)


def _loss_sum(judged: Judged) -> Tensor:
    from torch.nn import functional as F

    losses_bl = F.binary_cross_entropy_with_logits(
        judged.logits_bl, judged.replaced_bl, reduction="none"
    )
    return (losses_bl * judged.real_bl).sum()


def _observe(seen: Seen) -> dict[str, Tensor]:
    from electra_dist.objectives.detection import replacement_histogram

    return {"histogram": replacement_histogram(seen.logits_bl, seen.replaced_bl, seen.real_bl)}


def _scores(tally: Tally) -> dict[Metric, float]:
    from electra_dist.objectives.detection import detection_scores

    scores = detection_scores(tally.tables["histogram"])
    return {
        PRECISION: scores.precision,
        RECALL: scores.recall,
        ACCURACY: scores.accuracy,
        AUC: scores.auc,
        REPLACED_FRACTION: scores.replaced_fraction,
    }


REPLACED_TOKENS = Objective(
    name="replaced tokens",
    network="discriminator",
    count="real_count",
    weight="train.discriminator_weight",
    called="the discriminator's loss",
    choices=2,
    loss=LOSS,
    metrics=(PRECISION, RECALL, ACCURACY, AUC, REPLACED_FRACTION),
    total="discriminator_loss_sum",
    sums={"histogram": (2, BINS)},
    loss_sum=_loss_sum,
    observe=_observe,
    scores=_scores,
)
