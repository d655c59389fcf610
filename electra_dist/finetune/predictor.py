"""What every model that answers has in common, whatever its task.

Comes in: items, read from a file or made of the fields of one object. Goes out: one `Prediction`
per item, in their order: lines of a table and an object for programs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.finetune.runners.runner import Array, Outputs

Scores = dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """Of one item. `cells` belong to the `header`, one tuple per line of the table; `content` is
    for programs.
    """

    cells: Sequence[tuple[str, ...]]
    content: dict[str, Any]


class Predictor(ABC):
    """A model that was loaded once, and answers as often as it is asked.

    kind    `discriminator`, `generator`, or the task that it was fine-tuned for
    header  columns of the table of predictions
    fields  names of what an item consists of; one text where there is one name
    """

    kind: str
    header: tuple[str, ...]
    fields: tuple[str, ...]

    @abstractmethod
    def read(self, path: Path) -> list[Any]:
        """The items of a file; raises `DataError` naming file and line."""

    @abstractmethod
    def item(self, fields: Mapping[str, Any], place: str) -> Any:
        """One item; raises `DataError`, which begins with `place`, where `fields` is none."""

    @abstractmethod
    def predict(self, items: Sequence[Any]) -> Iterable[Prediction]:
        """Of each item; raises `DataError` for one that the model cannot take."""

    def predict_with_scores(
        self, items: Sequence[Any], source: Path
    ) -> tuple[Iterable[Prediction], Scores]:
        """The same, and scores against the labels that are there; `source` names where they come
        from in an error.
        """
        del source
        return self.predict(items), {}


class TaskPredictor(Predictor):
    """A fine-tuned model: what it says follows from the outputs of a `Runner`."""

    @abstractmethod
    def outputs(self, items: Sequence[Any]) -> Outputs:
        """What the model gives for the items, in the form that the methods below take."""

    @abstractmethod
    def predictions(self, items: Sequence[Any], outputs: Outputs) -> list[Prediction]:
        """What the outputs say of each item."""

    @abstractmethod
    def scores(self, items: Sequence[Any], outputs: Outputs, source: Path) -> Scores:
        """Against the labels that are there; empty without."""

    def mixed(self, several: Sequence[Outputs]) -> Outputs:
        """The outputs of several models for the same items as those of one: of an ensemble."""
        return [
            tuple(self.mean(arrays) for arrays in zip(*each, strict=True))
            for each in zip(*several, strict=True)
        ]

    def mean(self, arrays: Sequence[Array]) -> Array:
        """One output of several models as that of one: by default the mean of its numbers."""
        found: Array = np.mean(arrays, axis=0)
        return found

    def predict(self, items: Sequence[Any]) -> list[Prediction]:
        """Of each item."""
        return self.predictions(items, self.outputs(items))

    def predict_with_scores(
        self, items: Sequence[Any], source: Path
    ) -> tuple[list[Prediction], Scores]:
        """The scores are of what is predicted."""
        outputs = self.outputs(items)
        return self.predictions(items, outputs), self.scores(items, outputs, source)


def mean_of_classes(logits: Sequence[Array]) -> Array:
    """Logits (..., C) whose probabilities are the mean of those of several models."""
    from scipy.special import log_softmax, logsumexp

    logs = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    found: Array = logsumexp(logs, axis=0) - np.log(len(logits))
    return found


def one_line(text: str) -> str:
    """For a cell of the table."""
    return " ".join(text.split())
