"""Smoothed and weighted cross-entropy, against its formula in float64."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight

from electra_dist.finetune.tasks.texts.loss import ClassLoss, balanced_weights


def test_it_is_the_sum_over_the_examples_divided_by_those_of_the_step() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(6, 3))
    labels = np.array([0, 2, 1, 1, 0, 2])
    weights = np.array([0.5, 1.5, 1.25])
    smoothing = 0.1
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    expected = -(targets * weights * logarithms).sum() / 24
    loss = ClassLoss(smoothing, weights)
    outputs = {"logits": torch.tensor(logits, dtype=torch.float32)}
    found = loss(outputs, torch.tensor(labels), num_items_in_batch=24)
    assert abs(float(found) - expected) < 1e-6


def test_the_weights_are_those_of_scikit_learn() -> None:
    targets = np.array([0, 0, 0, 1, 2, 2, 0, 1], dtype=float)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets.astype(int))
    np.testing.assert_allclose(balanced_weights(targets, 3), expected)
