"""Multiple choice as a task: from files and an encoder to what the training needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.console import say
from electra_dist.finetune.labelled import Files
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.runners.runner import Outputs
from electra_dist.finetune.tasks.candidates.encoding import encode_list, warn_of_cuts
from electra_dist.finetune.tasks.candidates.listwise import ListCollator, list_loss
from electra_dist.finetune.tasks.candidates.overlap import word_overlap
from electra_dist.finetune.tasks.choices.reading import Choice, read_choices
from electra_dist.finetune.training import Learner, Loss


class ChoiceFeatures(Sequence[dict[str, Any]]):
    """Model inputs of each example, a row per choice, made when they are asked for."""

    def __init__(self, choices: Sequence[Choice], tokenizer: Any, max_length: int) -> None:
        self._choices = choices
        self._tokenizer = tokenizer
        self._max_length = max_length

    def __len__(self) -> int:
        return len(self._choices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        choice = self._choices[index]
        features: dict[str, Any] = encode_list(self._tokenizer, choice, self._max_length)
        if choice.right is not None:
            features["labels"] = choice.right
        return features


class ChoiceLearner(Learner):
    """A model that scores each choice on its own; the softmax is over the choices of a text."""

    main_score = "accuracy"

    def __init__(self, files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> None:
        self._files = files
        self._encoder = encoder
        self._recipe = recipe
        training = read_choices(files.train, files.columns, files.unlabelled)
        say(_counts(files.train, training))
        warn_of_cuts(training, str(files.train), tokenizer, recipe.max_length)
        self.training = ChoiceFeatures(training, tokenizer, recipe.max_length)
        self.examples = {"to train on": len(training)}
        self.held_out = []
        self.simple = {}
        self._held_out: list[Choice] = []
        if files.dev is not None:
            self._held_out = read_choices(files.dev, files.columns, files.unlabelled)
            say(_counts(files.dev, self._held_out))
            self.held_out = ChoiceFeatures(self._held_out, tokenizer, recipe.max_length)
            self.examples["held out"] = len(self._held_out)
            self.simple = _without_model(training, self._held_out)

    def new_model(self) -> Any:
        return self._encoder.load("AutoModelForMultipleChoice", new_head=not self._recipe.keep_head)

    def loss(self) -> Loss:
        """The softmax over the candidates of a list."""
        return list_loss

    def collator(self, tokenizer: Any) -> Any:
        return ListCollator(tokenizer, of_choices=True)

    def scores(self, outputs: Outputs) -> Scores:
        return choice_scores(self._held_out, outputs)

    def marker(self, scores: Scores) -> dict[str, Any]:
        return {
            "task": "multiple-choice",
            "columns": asdict(self._files.columns),
            "max_length": self._recipe.max_length,
        }


def choice_scores(choices: Sequence[Choice], outputs: Outputs) -> Scores:
    """The fraction of the examples whose right choice has the highest logit, the first of equal
    ones; of those with a label.
    """
    right = [
        int(np.argmax(logits)) == choice.right
        for choice, (logits, *_) in zip(choices, outputs, strict=True)
        if choice.right is not None
    ]
    return {"accuracy": sum(right) / len(right)}


def _without_model(training: Sequence[Choice], held_out: Sequence[Choice]) -> Scores:
    """The better accuracy of two: of the place that is most often right in training, and of the
    choice that has most words of the text.
    """
    places = Counter(choice.right for choice in training)
    most = max(places.values())
    place = next(index for index, count in sorted(places.items()) if count == most)
    by_place = sum(choice.right == place for choice in held_out) / len(held_out)
    overlaps = [(word_overlap(choice.text, choice.candidates),) for choice in held_out]
    return {"accuracy": max(by_place, choice_scores(held_out, overlaps)["accuracy"])}


def _counts(path: Path, choices: Sequence[Choice]) -> str:
    """How many examples have how many choices, and how often each place is right, in words."""
    sizes = Counter(len(choice.candidates) for choice in choices)
    places = Counter(choice.right for choice in choices if choice.right is not None)
    shown = ", ".join(f"{count:,} of {size} choices" for size, count in sorted(sizes.items())[:10])
    right = ", ".join(f"{place} ({count:,})" for place, count in sorted(places.items())[:10])
    return f"{path}: {shown}; the right one is number {right}"
