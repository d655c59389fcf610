"""The labels of texts, as a fine-tuned model says them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from electra_dist.finetune.labelled import Example
from electra_dist.finetune.predictor import Prediction, one_line
from electra_dist.finetune.runners.runner import Array
from electra_dist.finetune.tasks.multilabel.labels import (
    SEPARATOR,
    THRESHOLD,
    MultiLabelTask,
    mean_logits,
)
from electra_dist.finetune.tasks.texts.predictor import TextPredictor, given_texts


class MultiLabelPredictor(TextPredictor):
    """Every class has a probability of its own; those above 0.5 are predicted."""

    task_type = MultiLabelTask

    def mean(self, arrays: Sequence[Array]) -> Array:
        """Of the probabilities, as logits."""
        return mean_logits(arrays)

    def prediction(self, example: Example, logits: NDArray[np.float32]) -> Prediction:
        """The labels that apply, and the probabilities of all."""
        given = given_texts(example)
        values = expit(logits).tolist()
        probabilities = dict(zip(self._task.labels or (), values, strict=True))
        predicted = [label for label, value in probabilities.items() if value > THRESHOLD]
        cells = (
            SEPARATOR.join(predicted),
            SEPARATOR.join(f"{probabilities[label]:.4f}" for label in predicted),
            one_line(" | ".join(given.values())),
        )
        content = given | {"predicted": predicted, "probabilities": probabilities}
        return Prediction([cells], content)
