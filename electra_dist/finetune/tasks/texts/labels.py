"""Classification and regression of a text or a pair of texts: labels, model inputs, scores.

Letters: B examples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.console import warn
from electra_dist.errors import DataError
from electra_dist.finetune.cleaning import cleaned
from electra_dist.finetune.labelled import Columns, Example, Unlabelled, read_examples

Floats = NDArray[np.floating[Any]]
#: More classes than this are taken for a mistake: a column of ids or of numbers.
MOST_CLASSES = 1000
#: Classes whose counts are printed.
_SHOWN = 20


@dataclass(frozen=True)
class TextTask:
    """`labels` are the classes in the order of the model's logits; None for regression.

    `clean` names what is done to each text before it is encoded (`cleaning.STEPS`).
    """

    columns: Columns
    labels: tuple[str, ...] | None
    clean: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        if self.labels is None:
            return "regression"
        return "classification"

    @property
    def main_score(self) -> str:
        """The score that chooses between seeds; higher is better."""
        if self.labels is None:
            return "spearman"
        return "accuracy"

    @property
    def problem_type(self) -> str:
        """What `transformers` calls it, which chooses the loss."""
        if self.labels is None:
            return "regression"
        return "single_label_classification"

    @property
    def outputs(self) -> int:
        """How many numbers the model has for an example."""
        if self.labels is None:
            return 1
        return len(self.labels)

    def read(self, path: Path, unlabelled: Unlabelled = "keep") -> list[Example]:
        """The examples of a file, as `read_examples`."""
        return read_examples(path, self.columns, unlabelled)

    def to_dict(self) -> dict[str, Any]:
        """What a fine-tuned model's marker keeps of it."""
        columns = {
            "text": self.columns.text,
            "pair": self.columns.pair,
            "label": self.columns.label,
        }
        return {
            "task": self.name,
            "columns": columns,
            "labels": self.labels,
            "clean": self.clean,
        }

    def targets(
        self, examples: Sequence[Example], path: Path, unlabelled: str | None = None
    ) -> NDArray[np.float64]:
        """(B,): index of the class, or the number; NaN where there is no label, or it is
        `unlabelled` and no class. Raises `DataError` for a label that is no class, or no number.
        """
        found = []
        for number, example in enumerate(examples, 1):
            place = f"{path}, line {example.line or number}"
            if example.label is None:
                found.append(math.nan)
            elif self.labels is None:
                found.append(_number(place, example.label))
            else:
                found.append(self.index(place, example.label, unlabelled))
        return np.array(found)

    def index(self, place: str, label: str, unlabelled: str | None = None) -> float:
        """Of the class in `labels`; NaN where it is `unlabelled` and no class.

        Raises `DataError`, which begins with `place`, for another label.
        """
        number = self._indices.get(label)
        if number is None:
            number = self._indices.get(_as_number(label))
        if number is not None:
            return float(number)
        if label == unlabelled:
            return math.nan
        raise DataError(
            f"{place}: label {label!r}; the training data has only"
            f" {', '.join(map(repr, (self.labels or ())[:10]))}"
        )

    @cached_property
    def _indices(self) -> dict[str | float | None, int]:
        """The index of each class by its name, and by its number where all are numbers."""
        names: dict[str | float | None, int] = {
            label: index for index, label in enumerate(self.labels or ())
        }
        numbers = {_as_number(label): index for index, label in enumerate(self.labels or ())}
        if None in numbers:
            return names
        return names | numbers

    def counts(self, targets: NDArray[np.float64]) -> str:
        """How often each class occurs, or the range of the numbers, in words."""
        if self.labels is None:
            return f"labels from {targets.min():g} to {targets.max():g}, mean {targets.mean():g}"
        return counted_classes(self.labels, np.bincount(targets.astype(int)).tolist())

    def absent(self, targets: NDArray[np.float64]) -> tuple[str, ...]:
        """Classes that do not occur."""
        there = set(targets.astype(int).tolist())
        return tuple(label for index, label in enumerate(self.labels or ()) if index not in there)

    def features(
        self, tokenizer: Any, examples: Sequence[Example], max_length: int
    ) -> list[dict[str, Any]]:
        """Model inputs of each example, cleaned and cut to `max_length` tokens, without labels."""
        pairs = None
        if self.columns.pair:
            pairs = cleaned([example.pair or "" for example in examples], self.clean)
        texts = cleaned([example.text for example in examples], self.clean)
        encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length)
        cut = sum(bool(one.overflowing) for one in encoded.encodings)
        if cut:
            warn(
                f"{cut:,} of {len(texts):,} examples are longer than {max_length} tokens; the rest"
                " of them is not seen"
            )
        return [{name: encoded[name][index] for name in encoded} for index in range(len(examples))]

    def labelled(
        self, features: list[dict[str, Any]], targets: NDArray[np.float64]
    ) -> list[dict[str, Any]]:
        """The same with `labels`, as `transformers` calls the targets."""
        kind: type[int] | type[float] = int
        if self.labels is None:
            kind = float
        return [
            feature | {"labels": kind(target)}
            for feature, target in zip(features, targets.tolist(), strict=True)
        ]

    def scores(self, logits: Floats, targets: NDArray[np.float64]) -> dict[str, float]:
        """Scores of logits (B, C) or, for regression, (B,) or (B, 1)."""
        if self.labels is None:
            return regression_scores(logits.reshape(-1), targets)
        return classification_scores(logits.argmax(axis=1), targets.astype(int), len(self.labels))

    def simple_scores(
        self, training: NDArray[np.float64], held_out: NDArray[np.float64]
    ) -> dict[str, float]:
        """Scores of an answer that needs no model: the most frequent class of the training, or the
        mean.
        """
        if self.labels is None:
            return regression_scores(np.full(len(held_out), training.mean()), held_out)
        most = np.bincount(training.astype(int)).argmax()
        guesses = np.full(len(held_out), most)
        return classification_scores(guesses, held_out.astype(int), len(self.labels))


def counted_classes(labels: tuple[str, ...], counts: Sequence[int]) -> str:
    """The first classes, each with how often it occurs, in words; beyond `counts` that is 0."""
    padded = [*counts, *[0] * len(labels)]
    shown = [f"{label} ({padded[index]:,})" for index, label in enumerate(labels[:_SHOWN])]
    if len(labels) > _SHOWN:
        shown.append("...")
    return f"{len(labels)} classes: {', '.join(shown)}"


def classes(examples: Sequence[Example], path: Path) -> tuple[str, ...]:
    """The labels that occur, as `in_order`; raises `DataError` when they are not classes."""
    found = in_order({example.label for example in examples if example.label is not None})
    if len(found) < 2:
        raise DataError(
            f"{path}: every example has the label {found[0]!r}; a classification needs two or more"
        )
    if len(found) > MOST_CLASSES:
        raise DataError(
            f"{path}: {len(found):,} different labels; is `label` the right column, or `task`"
            " regression what is meant?"
        )
    return found


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Numbers in their order, else by name.

    Where all are numbers, those of one value are one class, named by its shortest form: 1 and 1.0.
    """
    if any(_as_number(label) is None for label in labels):
        return tuple(sorted(labels))
    return tuple(sorted(_shortest_forms(labels), key=float))


def _shortest_forms(labels: Iterable[str]) -> set[str]:
    """One label for each value."""
    forms: dict[float, str] = {}
    for label in sorted(labels, key=lambda label: (len(label), label)):
        forms.setdefault(float(label), label)
    return set(forms.values())


def classification_scores(
    predicted: NDArray[Any], targets: NDArray[Any], classes: int
) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews' correlation (0 where all is one class) of a task of so many
    `classes`; with two also F1 of the second, the positive one.

    Which scores there are depends on the task alone. The macro F1 is the mean over the classes that
    occur, as label or as prediction: of the others it is not defined.
    """
    from sklearn import metrics

    scores = {
        "accuracy": float(metrics.accuracy_score(targets, predicted)),
        "macro_f1": float(metrics.f1_score(targets, predicted, average="macro", zero_division=0)),
        "matthews": 0.0,
    }
    if len(np.union1d(targets, predicted)) > 1:
        scores["matthews"] = float(metrics.matthews_corrcoef(targets, predicted))
    if classes == 2:
        scores["f1"] = float(metrics.f1_score(targets, predicted, zero_division=0))
    return scores


def regression_scores(predicted: Floats, targets: NDArray[np.float64]) -> dict[str, float]:
    """Pearson's and Spearman's correlation (0 where one side is constant)
    and the mean squared error.
    """
    from scipy import stats

    varies = len(predicted) > 1 and np.ptp(predicted) > 0 and np.ptp(targets) > 0
    return {
        "spearman": float(stats.spearmanr(predicted, targets).statistic) if varies else 0.0,
        "pearson": float(stats.pearsonr(predicted, targets).statistic) if varies else 0.0,
        "mean_squared_error": float(((predicted - targets) ** 2).mean()),
    }


def _number(place: str, label: str) -> float:
    value = _as_number(label)
    if value is None:
        raise DataError(f"{place}: label {label!r}; regression needs a finite number")
    return value


def _as_number(label: str) -> float | None:
    """The value of a label that is a finite number, None of any other."""
    try:
        value = float(label)
    except ValueError:
        return None
    if math.isfinite(value) and "_" not in label:
        return value
    return None
