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

_ELECTRA = "Clark et al. 2020, arXiv 2003.10555"
_CONFUSION = "tp, fp, fn: tokens rightly and wrongly called replaced, and wrongly called original"

LOSS = Metric(
    "loss/discriminator",
    "nats per real token",
    "binary cross-entropy of the discriminator, before its weight",
    ".4f",
    best="min",
    held_out=True,
    formula="mean of -ln p(label) over the real tokens of all ranks, [CLS] and [SEP] included",
    healthy="soon below the entropy of the labels: -q ln q - (1 - q) ln(1 - q), with q ="
    " `discriminator/replaced_fraction`",
    source=f"{_ELECTRA}, section 2",
)
PRECISION = Metric(
    "discriminator/precision",
    "fraction",
    "of the tokens called replaced (logit above 0), those that are",
    ".2f",
    best="max",
    held_out=True,
    formula=f"tp / (tp + fp); {_CONFUSION}",
    healthy="undefined until a token is called replaced; then rises",
    source="van Rijsbergen 1979, Information Retrieval, chapter 7",
)
RECALL = Metric(
    "discriminator/recall",
    "fraction",
    "of the replaced tokens, those called so",
    ".2f",
    best="max",
    held_out=True,
    formula="tp / (tp + fn)",
    healthy="0 at first, then rises; one that stays 0 calls every token original",
    source="van Rijsbergen 1979, chapter 7",
)
F1 = Metric(
    "discriminator/f1",
    "fraction",
    "harmonic mean of precision and recall",
    best="max",
    held_out=True,
    formula="2 tp / (2 tp + fp + fn)",
    healthy="0 at first, then rises",
    source="van Rijsbergen 1979, chapter 7",
)
ACCURACY = Metric(
    "discriminator/accuracy",
    "fraction",
    'of all real tokens; "always original" already gives 1 - `replaced_fraction`',
    best="max",
    held_out=True,
    formula="real tokens called what they are / real tokens",
    healthy="above 1 - `discriminator/replaced_fraction`",
    source=f"{_ELECTRA}, section 2",
)
AUC = Metric(
    "discriminator/auc",
    "probability",
    "that a replaced token has a larger logit than an original one; 0.5 is chance",
    best="max",
    held_out=True,
    formula="share of the pairs (replaced, original) in that order, ties one half (Mann-Whitney)",
    healthy="0.5 at first, then rises; one that goes back to 0.5 has collapsed",
    source="Fawcett 2006, doi 10.1016/j.patrec.2005.10.010",
)
BRIER = Metric(
    "discriminator/brier",
    "",
    'mean squared error of the probability of "replaced"',
    ".4f",
    best="min",
    held_out=True,
    formula="mean of (p - label)^2 over real tokens; label 1 where replaced",
    healthy="below q (1 - q), which the constant q gives; q = `discriminator/replaced_fraction`",
    source="Brier 1950, doi 10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2",
)
CALIBRATION_ERROR = Metric(
    "discriminator/calibration_error",
    "fraction",
    'how far the probability of "replaced" is from the share that is replaced, on average',
    ".4f",
    best="min",
    held_out=True,
    formula="sum over 15 equal-width bins of p of (tokens in the bin / real tokens) *"
    " abs(mean p - share replaced in the bin)",
    healthy="below 0.05 after the warm-up",
    source="Guo et al. 2017, arXiv 1706.04599, section 2, in its binary form",
)
REPLACED_FRACTION = Metric(
    "discriminator/replaced_fraction",
    "fraction",
    "real tokens that the generator replaced with another",
    held_out=True,
    formula="real tokens that differ from the original / real tokens",
    healthy="begins near the share of masked positions; falls as the generator learns",
    source=f"{_ELECTRA}, section 2",
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
        F1: scores.f1,
        ACCURACY: scores.accuracy,
        AUC: scores.auc,
        BRIER: scores.brier,
        CALIBRATION_ERROR: scores.calibration_error,
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
    metrics=(
        PRECISION,
        RECALL,
        F1,
        ACCURACY,
        AUC,
        BRIER,
        CALIBRATION_ERROR,
        REPLACED_FRACTION,
    ),
    total="discriminator_loss_sum",
    sums={"histogram": (2, BINS)},
    loss_sum=_loss_sum,
    observe=_observe,
    scores=_scores,
)
