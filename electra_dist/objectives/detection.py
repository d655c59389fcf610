"""The arithmetic of the scores of replaced-token detection.

The discriminator's precision, recall, AUC and calibration all come from one histogram of its logits
by label, which is added up on the device over micro-batches, steps and ranks without a host
synchronisation.
Accuracy alone would say little: "always original" scores 0.94 and more.

Letters: B rows, L row length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from electra_dist.objectives.bins import BINS, LOGIT_RANGE


def replacement_histogram(logits: Tensor, replaced: Tensor, real: Tensor) -> Tensor:
    """Histogram of the discriminator's logits, original tokens in row 0, replaced ones in row 1.

    logits (B, L); replaced (B, L), 1 where the token was replaced; real (B, L), false on padding.
    Returns (2, BINS) fp32 counts on the same device.
    """
    scaled = (logits.detach().float().flatten() + LOGIT_RANGE) * (BINS / (2 * LOGIT_RANGE))
    # Rounding must not carry a negative logit over the edge at 0:
    # the side is decided by the sign itself.
    lower = torch.where(logits.detach().flatten() < 0, 0, BINS // 2)
    bins = torch.minimum(torch.maximum(scaled.long(), lower), lower + BINS // 2 - 1)
    index = bins + replaced.flatten().long() * BINS
    counts = torch.zeros(2 * BINS, dtype=torch.float32, device=logits.device)
    counts.index_add_(0, index, real.flatten().to(torch.float32))
    return counts.view(2, BINS)


#: Equal-width bins of probability of the calibration error (arXiv 1706.04599, section 3).
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class DetectionScores:
    """Replaced-token detection at threshold 0.5, `replaced` being the positive class;
    NaN where undefined.

    brier              mean of (probability of "replaced" - label) squared
    calibration_error  mean over tokens of |probability - share of replaced tokens| by bins of it
    """

    precision: float
    recall: float
    f1: float
    accuracy: float
    auc: float
    brier: float
    calibration_error: float
    replaced_fraction: float


def detection_scores(histogram: Tensor) -> DetectionScores:
    """Scores of a (2, BINS) histogram, from `replacement_histogram`.

    AUC is the probability that a replaced token has the larger logit, ties inside a bin counting
    one half (Mann-Whitney): exact up to the bin width of 2 * LOGIT_RANGE / BINS = 0.004 logits.
    Brier score and calibration error take every logit of a bin as its middle: a probability is at
    most 0.0005 away from that.
    """
    original, replaced = histogram.double().cpu()
    n_original = original.sum()
    n_replaced = replaced.sum()
    true_positive = replaced[BINS // 2 :].sum()
    false_positive = original[BINS // 2 :].sum()
    below = original.cumsum(0) - original  # original tokens in strictly lower bins
    wins = (replaced * (below + original / 2)).sum()
    total = n_original + n_replaced
    probability = _middles().sigmoid()
    squares = original * probability.square() + replaced * (1 - probability).square()
    return DetectionScores(
        precision=float(true_positive / (true_positive + false_positive)),
        recall=float(true_positive / n_replaced),
        f1=float(2 * true_positive / (true_positive + false_positive + n_replaced)),
        accuracy=float((n_original - false_positive + true_positive) / total),
        auc=float(wins / (n_original * n_replaced)),
        brier=float(squares.sum() / total),
        calibration_error=float(_miscalibrated(original + replaced, replaced, probability) / total),
        replaced_fraction=float(n_replaced / total),
    )


def _middles() -> Tensor:
    """(BINS,) fp64 logit in the middle of each bin."""
    width = 2 * LOGIT_RANGE / BINS
    return (torch.arange(BINS, dtype=torch.float64) + 0.5) * width - LOGIT_RANGE


def _miscalibrated(tokens: Tensor, replaced: Tensor, probability: Tensor) -> Tensor:
    """Sum over bins of probability of |tokens called replaced on average - those that are|."""
    index = (probability * CALIBRATION_BINS).long()
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, index, tokens * probability - replaced)
    return gaps.abs().sum()
