"""The choice that fits a text, as a fine-tuned model says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from electra_dist.console import warn
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import (
    Prediction,
    Scores,
    TaskPredictor,
    mean_of_classes,
    one_line,
)
from electra_dist.finetune.runners.runner import Array, Outputs, Runner
from electra_dist.finetune.tasks.candidates.columns import kept_columns
from electra_dist.finetune.tasks.choices.learner import ChoiceFeatures, choice_scores
from electra_dist.finetune.tasks.choices.reading import Choice, choice_of, read_choices


class ChoicePredictor(TaskPredictor):
    """A model for multiple choice."""

    kind = "multiple-choice"
    header = ("predicted", "probability", "text")

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> None:
        self._tokenizer = tokenizer
        self._runner = runner
        self._max_length = int(folder.fact("max_length"))
        self._columns = kept_columns(folder)
        listed = self._columns.pair or "choices"
        if "," in listed:
            listed = "choices"
        self.fields = (self._columns.text, listed)

    def read(self, path: Path) -> list[Choice]:
        """Examples, labelled or not."""
        return read_choices(path, self._columns)

    def item(self, fields: Mapping[str, Any], place: str) -> Choice:
        """A text and a list of choices."""
        (text, listed) = self.fields
        return choice_of(place, fields, Columns(text, listed, self._columns.label))

    def outputs(self, items: Sequence[Choice]) -> Outputs:
        """The logits (C,) of each, one per choice."""
        return self._runner(ChoiceFeatures(items, self._tokenizer, self._max_length))

    def predictions(self, items: Sequence[Choice], outputs: Outputs) -> list[Prediction]:
        """The choice with the highest probability, the first of equal ones."""
        return [
            _prediction(choice, logits) for choice, (logits, *_) in zip(items, outputs, strict=True)
        ]

    def scores(self, items: Sequence[Choice], outputs: Outputs, source: Path) -> Scores:
        """Of those with a label."""
        known = sum(choice.right is not None for choice in items)
        if not known:
            return {}
        if known < len(items):
            warn(
                f"{source}: {len(items) - known:,} of {len(items):,} examples have no label; the"
                " scores are of the others"
            )
        return choice_scores(items, outputs)

    def mean(self, arrays: Sequence[Array]) -> Array:
        """Of the probabilities of the choices."""
        return mean_of_classes(arrays)


def _prediction(choice: Choice, logits: NDArray[np.float32]) -> Prediction:
    probabilities = softmax(logits).tolist()
    best = int(np.argmax(logits))
    content = {
        "text": choice.text,
        "predicted": choice.candidates[best],
        "index": best,
        "probabilities": probabilities,
    }
    cells = (one_line(choice.candidates[best]), f"{probabilities[best]:.4f}", one_line(choice.text))
    return Prediction([cells], content)
