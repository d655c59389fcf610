"""Detection scores against brute force over all pairs and plain counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, f1_score

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


def calibration_error(probability: np.ndarray, replaced: np.ndarray) -> float:
    """A loop over the 15 bins, as the paper writes it (arXiv 1706.04599, equation 3)."""
    total = 0.0
    for index in range(15):
        lower = index / 15
        inside = (probability >= lower) & (probability < lower + 1 / 15)
        if inside.any():
            gap = abs(probability[inside].mean() - replaced[inside].mean())
            total += inside.mean() * gap
    return float(total)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 6.0])
def test_f1_brier_and_calibration_equal_those_of_scikit_learn_and_of_a_loop(
    sharpness: float,
) -> None:
    generator = torch.Generator().manual_seed(5)
    replaced = (torch.rand(64, 128, generator=generator) < 0.12).float()
    noise = torch.randn(64, 128, generator=generator)
    logits = sharpness * (noise + 3 * replaced - 2)
    real = torch.rand(64, 128, generator=generator) < 0.9
    scores = detection_scores(replacement_histogram(logits, replaced, real))

    labels = replaced[real].numpy()
    probability = logits[real].double().sigmoid().numpy()
    assert scores.f1 == pytest.approx(f1_score(labels, probability >= 0.5))
    assert scores.brier == pytest.approx(brier_score_loss(labels, probability), abs=1e-5)
    expected = calibration_error(probability, labels)
    assert scores.calibration_error == pytest.approx(expected, abs=5e-4)
    assert expected > 0.02


def test_a_calibrated_discriminator_has_no_calibration_error() -> None:
    """Labels drawn with the probability that the logits say."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(400_000, generator=generator) * 2
    replaced = (torch.rand(400_000, generator=generator) < logits.sigmoid()).float()
    real = torch.ones(400_000, dtype=torch.bool)
    scores = detection_scores(replacement_histogram(logits, replaced, real))
    assert scores.calibration_error < 0.004


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
