"""The loss of classification with smoothed labels and weighted classes.

Letters: B examples, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


class ClassLoss:
    """Cross-entropy, summed and divided by the number of examples of the whole step."""

    def __init__(self, smoothing: float, weights: NDArray[np.float64] | None) -> None:
        """`weights` (C,) have the mean 1 over the training examples."""
        self._smoothing = smoothing
        self._weights = weights

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int
    ) -> torch.Tensor:
        """Of logits (B, C) and classes (B,); called as `transformers.Trainer` does."""
        logits = outputs["logits"].float()
        weights = None
        if self._weights is not None:
            weights = torch.tensor(self._weights, dtype=logits.dtype, device=logits.device)
        total = F.cross_entropy(
            logits, labels, weight=weights, reduction="sum", label_smoothing=self._smoothing
        )
        return total / num_items_in_batch


def balanced_weights(targets: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """(C,): B / (C * how often the class occurs), as scikit-learn's `balanced`."""
    counts = np.bincount(targets.astype(int), minlength=classes)
    weights: NDArray[np.float64] = len(targets) / (classes * counts)
    return weights
