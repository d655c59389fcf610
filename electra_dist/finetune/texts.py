"""Classification and regression of a text or a pair of texts: labels, model inputs, scores.

Letters: B examples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.console import warn
from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns, Example, read_examples

Floats = NDArray[np.floating[Any]]
#: More classes than this are taken for a mistake: a column of ids or of numbers.
MOST_CLASSES = 1000


@dataclass(frozen=True)
class TextTask:
    """`labels` are the classes in the order of the model's logits; None for regression."""

    columns: Columns
    labels: tuple[str, ...] | None

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

    def to_dict(self) -> dict[str, Any]:
        """What a fine-tuned model's marker keeps of it."""
        columns = {
            "text": self.columns.text,
            "pair": self.columns.pair,
            "label": self.columns.label,
        }
        return {"task": self.name, "columns": columns, "labels": self.labels}

    def read(self, path: Path, labelled: bool = True) -> list[Example]:
        """The examples of a file, their labels checked; raises `DataError`."""
        examples = read_examples(path, self.columns, labelled)
        self.targets(examples, path)
        return examples

    def targets(self, examples: Sequence[Example], path: Path) -> NDArray[np.float64]:
        """(B,): index of the class, or the number; NaN where there is no label."""
        known = {label: index for index, label in enumerate(self.labels or ())}
        found = []
        for number, example in enumerate(examples, 1):
            if example.label is None:
                found.append(math.nan)
            elif self.labels is None:
                found.append(_number(path, number, example.label))
            elif example.label in known:
                found.append(float(known[example.label]))
            else:
                raise DataError(
                    f"{path}, example {number}: label {example.label!r}; the training data has only"
                    f" {', '.join(map(repr, self.labels[:10]))}"
                )
        return np.array(found)

    def features(
        self, tokenizer: Any, examples: Sequence[Example], max_length: int
    ) -> list[dict[str, Any]]:
        """Model inputs of each example, cut to `max_length` tokens, without labels."""
        if self.columns.pair:
            pairs = [example.pair for example in examples]
        else:
            pairs = None
        texts = [example.text for example in examples]
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
        return classification_scores(logits.argmax(axis=1), targets.astype(int))


def classes(examples: Sequence[Example], path: Path) -> tuple[str, ...]:
    """The labels that occur, numbers in their order, else by name;
    raises `DataError` when they are not classes.
    """
    found = {example.label for example in examples if example.label is not None}
    if len(found) < 2:
        raise DataError(
            f"{path}: every example has the label {found.pop()!r}; a classification needs two or"
            " more"
        )
    if len(found) > MOST_CLASSES:
        raise DataError(
            f"{path}: {len(found):,} different labels; is `label` the right column, or `task`"
            " regression what is meant?"
        )
    try:
        return tuple(sorted(found, key=float))
    except ValueError:
        return tuple(sorted(found))


def classification_scores(predicted: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews' correlation;
    with two classes also F1 of the second, the positive one.
    """
    from sklearn import metrics

    scores = {
        "accuracy": float(metrics.accuracy_score(targets, predicted)),
        "macro_f1": float(metrics.f1_score(targets, predicted, average="macro", zero_division=0)),
        "matthews": float(metrics.matthews_corrcoef(targets, predicted)),
    }
    if max(targets.max(), predicted.max()) <= 1:
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


def _number(path: Path, example: int, label: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{path}, example {example}: label {label!r}; regression needs a finite number"
        )
    return value
