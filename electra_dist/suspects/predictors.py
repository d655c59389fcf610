"""Suspects and prompts as `Predictor`s, for whoever asks a model without knowing its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.console import warn
from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns, Example, read_examples
from electra_dist.finetune.predictor import Prediction, Predictor, Scores, one_line
from electra_dist.finetune.tasks.texts.labels import classification_scores
from electra_dist.finetune.tasks.texts.predictor import NOT_LABELLED
from electra_dist.suspects.finding import Finder
from electra_dist.suspects.prompts import Probabilities, Prompter
from electra_dist.suspects.shown import COLUMNS, table_rows


class SuspectsPredictor(Predictor):
    """The words of texts that do not belong; a row of the table per suspect."""

    kind = "suspects"
    header = COLUMNS
    fields = ("text",)

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def read(self, path: Path) -> list[str]:
        """Texts, blank ones too."""
        return [example.text for example in read_examples(path, Columns())]

    def item(self, fields: Mapping[str, Any], place: str) -> str:
        """The text."""
        return _text(fields, place)

    def predict(self, items: Sequence[str]) -> Iterator[Prediction]:
        """Every text, with all its words for programs."""
        for number, judged in enumerate(self._finder.find(items), 1):
            yield Prediction(tuple(table_rows(number, judged)), judged.content())


class PromptPredictor(Predictor):
    """Labels without training."""

    kind = "prompt"
    header = ("predicted", "probability", "text")
    fields = ("text",)

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter

    def read(self, path: Path) -> list[Example]:
        """Examples, labelled or not."""
        return read_examples(path, Columns())

    def item(self, fields: Mapping[str, Any], place: str) -> Example:
        """The text."""
        return Example(_text(fields, place))

    def predict(self, items: Sequence[Example]) -> list[Prediction]:
        """The likeliest label, and the probability of each."""
        return self._predictions(items, self._probabilities(items))

    def predict_with_scores(
        self, items: Sequence[Example], source: Path
    ) -> tuple[list[Prediction], Scores]:
        """Raises `DataError` for a label that is none of the prompt's."""
        targets = self._targets(items, source)
        probabilities = self._probabilities(items)
        known = targets >= 0
        scores: Scores = {}
        if known.any():
            predicted = probabilities.argmax(axis=1)
            labels = len(self._prompter.labels)
            scores = classification_scores(predicted[known], targets[known], labels)
        if known.any() and not known.all():
            warn(
                f"{source}: {int((~known).sum()):,} of {len(items):,} examples have no label; the"
                " scores are of the others"
            )
        return self._predictions(items, probabilities), scores

    def _probabilities(self, items: Sequence[Example]) -> Probabilities:
        return self._prompter.probabilities([example.text for example in items])

    def _predictions(
        self, items: Sequence[Example], probabilities: Probabilities
    ) -> list[Prediction]:
        return [
            self._prediction(example, row)
            for example, row in zip(items, probabilities.tolist(), strict=True)
        ]

    def _prediction(self, example: Example, row: list[float]) -> Prediction:
        by_label = dict(zip(self._prompter.labels, row, strict=True))
        best = max(by_label, key=lambda label: by_label[label])
        content = {"text": example.text, "predicted": best, "probabilities": by_label}
        return Prediction([(best, f"{by_label[best]:.4f}", one_line(example.text))], content)

    def _targets(self, items: Sequence[Example], source: Path) -> np.ndarray[Any, Any]:
        """Places of the labels among those of the prompt; -1 where there is none."""
        places = {label: place for place, label in enumerate(self._prompter.labels)}
        targets = np.full(len(items), -1)
        for number, example in enumerate(items):
            if example.label in places:
                targets[number] = places[example.label]
            elif example.label not in (None, NOT_LABELLED):
                raise DataError(
                    f"{source}, line {example.line}: label {example.label!r} is none of `labels`:"
                    f" {', '.join(places)}; name them as the file does"
                )
        return targets


def _text(fields: Mapping[str, Any], place: str) -> str:
    text = fields.get("text")
    if not isinstance(text, str):
        raise DataError(f"{place}: 'text' is {text!r}; expected a text")
    return text
