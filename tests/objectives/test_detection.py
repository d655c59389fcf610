"""Detection scores against brute force over all pairs and plain counts."""

from __future__ import annotations

import math

import pytest
import torch

from electra_dist.objectives.detection import detection_scores, replacement_histogram


def brute_force(logits: torch.Tensor, replaced: torch.Tensor) -> tuple[float, float, float]:
    positive, negative = logits[replaced == 1], logits[replaced == 0]
    auc = (
        (positive[:, None] > negative[None]).double()
        + 0.5 * (positive[:, None] == negative[None]).double()
    ).mean()
    predicted = logits >= 0
    hits = (predicted & (replaced == 1)).sum()
    return float(hits / predicted.sum()), float(hits / (replaced == 1).sum()), float(auc)


@pytest.mark.parametrize("shift", [-2.0, 0.0, 30.0])
def test_scores_equal_brute_force_and_ignore_padding(shift: float) -> None:
    generator = torch.Generator().manual_seed(3)
    replaced = (torch.rand(8, 64, generator=generator) < 0.1).float()
    logits = torch.randn(8, 64, generator=generator) * 2 + replaced * 1.5
    logits[:, 32:] += shift * (torch.rand(8, 32, generator=generator) < 0.2)
    real = torch.rand(8, 64, generator=generator) < 0.9
    scores = detection_scores(replacement_histogram(logits, replaced, real))
    precision, recall, auc = brute_force(logits[real].clamp(-15.999, 15.999), replaced[real])
    assert scores.precision == pytest.approx(precision)
    assert scores.recall == pytest.approx(recall)
    assert scores.auc == pytest.approx(auc, abs=1e-3)


def test_histograms_of_parts_add_up_to_the_histogram_of_the_whole() -> None:
    logits, replaced = torch.randn(4, 32), (torch.rand(4, 32) < 0.2).float()
    real = torch.ones(4, 32, dtype=torch.bool)
    parts = sum(replacement_histogram(logits[i], replaced[i], real[i]) for i in range(4))
    assert torch.equal(torch.as_tensor(parts), replacement_histogram(logits, replaced, real))


def test_the_smallest_negative_logit_is_predicted_original() -> None:
    logits = torch.tensor([-1e-7, 0.0, -100.0, 100.0])
    histogram = replacement_histogram(logits, torch.ones(4), torch.ones(4, dtype=torch.bool))
    assert detection_scores(histogram).recall == 0.5


def test_scores_without_replaced_tokens_are_undefined_not_zero() -> None:
    histogram = replacement_histogram(
        torch.randn(16) - 5, torch.zeros(16), torch.ones(16, dtype=torch.bool)
    )
    scores = detection_scores(histogram)
    assert math.isnan(scores.recall)
    assert math.isnan(scores.auc)
