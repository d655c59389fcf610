"""The arithmetic of the scores of replaced-token detection.

The discriminator's precision, recall and AUC all come from one histogram of its logits by label,
which is added up on the device over micro-batches, steps and ranks without a host synchronisation.
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


@dataclass(frozen=True)
class DetectionScores:
    """Replaced-token detection at threshold 0.5, `replaced` being the positive class;
    NaN where undefined.
    """

    precision: float
    recall: float
    accuracy: float
    auc: float
    replaced_fraction: float


def detection_scores(histogram: Tensor) -> DetectionScores:
    """Scores of a (2, BINS) histogram, from `replacement_histogram`.

    AUC is the probability that a replaced token has the larger logit, ties inside a bin counting
    one half (Mann-Whitney): exact up to the bin width of 2 * LOGIT_RANGE / BINS = 0.004 logits.
    """
    original, replaced = histogram.double().cpu()
    n_original = original.sum()
    n_replaced = replaced.sum()
    true_positive = replaced[BINS // 2 :].sum()
    false_positive = original[BINS // 2 :].sum()
    below = original.cumsum(0) - original  # original tokens in strictly lower bins
    wins = (replaced * (below + original / 2)).sum()
    total = n_original + n_replaced
    return DetectionScores(
        precision=float(true_positive / (true_positive + false_positive)),
        recall=float(true_positive / n_replaced),
        accuracy=float((n_original - false_positive + true_positive) / total),
        auc=float(wins / (n_original * n_replaced)),
        replaced_fraction=float(n_replaced / total),
    )
