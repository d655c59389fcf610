"""Several labels per text: how they are written, targets, scores.

    tables       one cell, the labels separated by `|`; an empty cell says that none applies
    JSON lines   a list of texts or numbers, `[]` where none applies; or a text as in a table

Letters: B examples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import NO_VALUE, Example, Unlabelled, read_examples
from electra_dist.finetune.tasks.texts.labels import (
    MOST_CLASSES,
    Floats,
    TextTask,
    counted_classes,
    in_order,
)

SEPARATOR = "|"
#: A class applies where its probability is above this.
THRESHOLD = 0.5
#: Probabilities keep this distance from 0 and 1, where their logits would be infinite.
_CLOSEST = 1e-12


class MultiLabelTask(TextTask):
    """Each of `labels` applies to an example or not, whatever the others do."""

    @property
    def name(self) -> str:
        return "multi-label"

    @property
    def main_score(self) -> str:
        return "micro_f1"

    @property
    def problem_type(self) -> str:
        """Its loss is the binary cross-entropy of every class."""
        return "multi_label_classification"

    def read(self, path: Path, unlabelled: Unlabelled = "keep") -> list[Example]:
        """The examples of a file; the label of each is one text, as in a table."""
        return read_examples(path, self.columns, unlabelled, joined_labels)

    def targets(
        self, examples: Sequence[Example], path: Path, unlabelled: str | None = None
    ) -> NDArray[np.float64]:
        """(B, C): 1 where a class applies, else 0; a row of NaN where nothing is known, or the
        label is `unlabelled` and no class. Raises `DataError` for a label that is no class.
        """
        found = np.zeros((len(examples), len(self.labels or ())))
        for row, example in enumerate(examples):
            place = f"{path}, line {example.line or row + 1}"
            if example.label is None:
                found[row] = math.nan
                continue
            for name in split_labels(example.label):
                index = self.index(place, name, unlabelled)
                if math.isnan(index):
                    found[row] = math.nan
                else:
                    found[row, int(index)] = 1
        return found

    def counts(self, targets: NDArray[np.float64]) -> str:
        """How often each class applies, and how many examples have no label, in words."""
        per_class = targets.sum(axis=0).astype(int).tolist()
        none = int((targets.sum(axis=1) == 0).sum())
        return (
            f"{counted_classes(self.labels or (), per_class)};"
            f" {targets.sum() / len(targets):.2f} per example, none for {none:,}"
        )

    def absent(self, targets: NDArray[np.float64]) -> tuple[str, ...]:
        """Classes that never apply."""
        counts = targets.sum(axis=0).tolist()
        return tuple(
            label for label, count in zip(self.labels or (), counts, strict=True) if not count
        )

    def labelled(
        self, features: list[dict[str, Any]], targets: NDArray[np.float64]
    ) -> list[dict[str, Any]]:
        """With `labels`, a list of C numbers."""
        return [
            feature | {"labels": row}
            for feature, row in zip(features, targets.tolist(), strict=True)
        ]

    def scores(self, logits: Floats, targets: NDArray[np.float64]) -> dict[str, float]:
        """Of logits (B, C)."""
        return multi_label_scores(expit(logits), targets.astype(int))

    def simple_scores(
        self, training: NDArray[np.float64], held_out: NDArray[np.float64]
    ) -> dict[str, float]:
        """Every class always has the probability that is its frequency in the training."""
        frequencies = np.broadcast_to(training.mean(axis=0), held_out.shape)
        return multi_label_scores(frequencies, held_out.astype(int))


def joined_labels(path: Path, line: int, value: Any) -> str | None:
    """The labels of an example as one text, "" where none applies; None where they are missing.

    Each is there once. Raises `DataError` naming file and line for what is no list of labels.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        if value.strip().lower() in NO_VALUE:
            return None
        names: list[Any] = split_labels(value.strip())
    elif isinstance(value, list):
        names = value
    else:
        raise DataError(
            f"{path}, line {line}: the labels are {value!r}; expected a list, or a text with"
            f" {SEPARATOR!r} between them"
        )
    return SEPARATOR.join(dict.fromkeys(_name(path, line, name) for name in names))


def _name(path: Path, line: int, value: Any) -> str:
    place = f"{path}, line {line}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{place}: one of the labels is {value!r}; expected a text or a number")
    name = str(value).strip()
    if not name or name.lower() in NO_VALUE:
        raise DataError(f"{place}: one of the labels is {str(value)!r}; expected a name")
    if SEPARATOR in name:
        raise DataError(
            f"{place}: the label {name!r} has a {SEPARATOR!r}, which separates labels; give it"
            " another name"
        )
    return name


def split_labels(label: str) -> list[str]:
    """The names in the text that `joined_labels` makes."""
    if not label:
        return []
    return label.split(SEPARATOR)


def label_classes(examples: Sequence[Example], path: Path) -> tuple[str, ...]:
    """The labels that occur, numbers in their order, else by name.

    Raises `DataError` where there are fewer than two, or too many to be classes.
    """
    found = in_order({name for example in examples for name in split_labels(example.label or "")})
    if len(found) < 2:
        there = ", ".join(map(repr, found)) or "none"
        raise DataError(
            f"{path}: different labels: {there}; multi-label needs two or more. In a table they are"
            f" separated by {SEPARATOR!r}, in JSON lines they are a list"
        )
    if len(found) > MOST_CLASSES:
        raise DataError(
            f"{path}: {len(found):,} different labels, more than {MOST_CLASSES:,}; is `label` the"
            " right column?"
        )
    return found


def mean_logits(several: Sequence[Floats]) -> Floats:
    """Logits whose probabilities are the mean of those of `several`."""
    mean = np.mean([expit(logits.astype(np.float64)) for logits in several], axis=0)
    found: Floats = logit(np.clip(mean, _CLOSEST, 1 - _CLOSEST))
    return found


def multi_label_scores(probabilities: Floats, targets: NDArray[np.int_]) -> dict[str, float]:
    """Scores of probabilities (B, C) against 1 and 0 (B, C), as scikit-learn defines them.

    micro_f1                 F1 of all decisions together
    macro_f1                 mean over the classes that occur, as label or as prediction
    exact_match              examples whose labels are all right, and no more
    macro_average_precision  mean over the classes that occur as label; needs no threshold

    Which scores there are depends on the task alone: they are 0 where no class occurs.
    """
    from sklearn import metrics

    predicted = (probabilities > THRESHOLD).astype(int)
    occurring = (targets + predicted).any(axis=0)
    labelled = targets.any(axis=0)
    scores = {
        "micro_f1": metrics.f1_score(targets, predicted, average="micro", zero_division=0),
        "macro_f1": 0.0,
        "exact_match": (predicted == targets).all(axis=1).mean(),
        "macro_average_precision": 0.0,
    }
    if occurring.any():
        each = metrics.f1_score(targets, predicted, average=None, zero_division=0)
        scores["macro_f1"] = each[occurring].mean()
    if labelled.any():
        precisions = metrics.average_precision_score(
            targets[:, labelled], probabilities[:, labelled], average=None
        )
        scores["macro_average_precision"] = np.mean(precisions)
    return {name: float(score) for name, score in scores.items()}
