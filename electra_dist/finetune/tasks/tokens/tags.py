"""The labels of a token classification: their scheme, targets for the model, scores.

Letters: N words of a sentence, C labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from electra_dist.console import warn
from electra_dist.errors import DataError, nearest
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.tasks.tokens.schemes import (
    PLAIN,
    entities_of,
    labels_of,
    labels_of_kinds,
    parts,
    recognise,
)
from electra_dist.finetune.tasks.tokens.sentences import Sentence

#: More labels than this are taken for a mistake: a column of words or of numbers.
MOST_LABELS = 1000
#: Labels whose counts are printed.
_SHOWN = 20
#: The names that `seqeval` has for the schemes.
_SEQEVAL = {"IOB1": "IOB2", "IOB2": "IOB2", "BILOU": "BILOU", "IOBES": "IOBES"}


@dataclass(frozen=True)
class TagTask:
    """`labels` are those of the model's logits, in their order; `scheme` is the one that the
    training file is written in.
    """

    columns: Columns
    labels: tuple[str, ...]
    scheme: str

    @classmethod
    def of(cls, sentences: Sequence[Sentence], columns: Columns, path: Path) -> TagTask:
        """The task of a training file.

        Raises `DataError` where its labels are no classes.
        """
        given = [one.labels or () for one in sentences]
        scheme = recognise(given, str(path))
        found = {label for labels in given for label in labels}
        if len(found) > MOST_LABELS:
            raise DataError(
                f"{path}: {len(found):,} different labels; is `label` the right column?"
            )
        if scheme == PLAIN:
            labels = sorted(found)
            if len(labels) < 2:
                raise DataError(
                    f"{path}: every word has the label {labels[0]!r}; expected two or more"
                )
        else:
            kinds = {pair[1] for pair in map(parts, found) if pair is not None and pair[1]}
            labels = labels_of_kinds(kinds, scheme)
        return cls(columns, tuple(labels), scheme)

    @property
    def marks_entities(self) -> bool:
        """Whether labels mark entities; else each stands for itself, as parts of speech do."""
        return self.scheme != PLAIN

    @property
    def main_score(self) -> str:
        """The score that chooses between seeds; higher is better."""
        if self.marks_entities:
            return "f1"
        return "accuracy"

    def to_dict(self) -> dict[str, Any]:
        """What a fine-tuned model's marker keeps of it."""
        return {
            "task": "token-classification",
            "columns": {"text": self.columns.text, "label": self.columns.label},
            "labels": self.labels,
            "scheme": self.scheme,
        }

    def written(self, labels: Sequence[str]) -> list[str]:
        """The labels of a sentence as the scheme writes them, with the same entities."""
        if not self.marks_entities:
            return list(labels)
        return labels_of(entities_of(labels), len(labels), self.scheme)

    def targets(self, sentences: Iterable[Sentence], path: Path) -> list[list[int]]:
        """(N,) of each sentence: the index of each word's label.

        Raises `DataError` for a label that is unknown; warns of those that break the scheme.
        """
        found = []
        broken: list[str] = []
        for sentence in sentences:
            given = sentence.labels or ()
            for index, label in enumerate(given):
                self._check(label, sentence, index, path)
            written = self.written(given)
            for index, (label, one) in enumerate(zip(given, written, strict=True)):
                if label != one:
                    broken.append(f"{sentence.place(path, index)}: {label} is read as {one}")
            found.append([self._indices[label] for label in written])
        if broken and self.scheme != "IOB1":
            warn(
                f"{path}: {len(broken):,} labels are not as {self.scheme} writes entities (a label"
                " inside an entity that follows none of its kind begins one); the first:"
                f" {broken[0]}"
            )
        return found

    def _check(self, label: str, sentence: Sentence, index: int, path: Path) -> None:
        if label in self._indices:
            return
        pair = parts(label)
        if self.marks_entities and pair is not None and pair[1] in self._kinds:
            return
        raise DataError(
            f"{sentence.place(path, index)}: the label {label!r} is not one of the training data"
            f"{nearest(label, self.labels)}; it has {self._listed(self._kinds or self.labels)}"
        )

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        """The kinds of entities, by name; none where the labels mark none."""
        if not self.marks_entities:
            return ()
        pairs = filter(None, map(parts, self.labels))
        return tuple(sorted({kind for _, kind in pairs if kind}))

    def named(self, targets: Sequence[int]) -> list[str]:
        """The labels of these indices."""
        return [self.labels[target] for target in targets]

    def counts(self, targets: Iterable[Sequence[int]]) -> str:
        """How often each kind of entity, or each label, occurs, in words."""
        counted = self._counted(targets)
        names = self._kinds or self.labels
        listed = self._listed([f"{name} ({counted[name]:,})" for name in names])
        if self.marks_entities:
            return f"{sum(counted.values()):,} entities in {self.scheme}: {listed}"
        return f"{len(self.labels)} labels, which mark no entities: {listed}"

    def absent(self, targets: Iterable[Sequence[int]]) -> list[str]:
        """Kinds of entities, or labels, that do not occur."""
        counted = self._counted(targets)
        return [name for name in self._kinds or self.labels if not counted[name]]

    def _counted(self, targets: Iterable[Sequence[int]]) -> Counter[str]:
        sentences = [self.named(one) for one in targets]
        if self.marks_entities:
            return Counter(entity.kind for one in sentences for entity in entities_of(one))
        return Counter(label for one in sentences for label in one)

    def _listed(self, names: Sequence[str]) -> str:
        return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")

    def scores(
        self, predicted: Sequence[Sequence[str]], targets: Sequence[Sequence[int]]
    ) -> Scores:
        """Of labels as `written` gives them.

        Entities: precision, recall and F1 of those with the right words and kind (`seqeval`,
        strict), and the accuracy of the words. Other labels: accuracy, and the mean F1 of the
        labels that occur.
        """
        expected = [self.named(one) for one in targets]
        if self.marks_entities:
            return _entity_scores(predicted, expected, self.scheme)
        return _label_scores(predicted, expected)


def _entity_scores(
    predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]], scheme: str
) -> Scores:
    from seqeval import metrics
    from seqeval import scheme as schemes
    from seqeval.metrics import v1 as strict

    precision, recall, f1, _ = strict.precision_recall_fscore_support(
        expected,
        predicted,
        average="micro",
        zero_division=0,
        scheme=getattr(schemes, _SEQEVAL[scheme]),
    )
    return {
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "accuracy": float(metrics.accuracy_score(expected, predicted)),
    }


def _label_scores(predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> Scores:
    from sklearn import metrics

    said = [label for one in predicted for label in one]
    right = [label for one in expected for label in one]
    return {
        "accuracy": float(metrics.accuracy_score(right, said)),
        "macro_f1": float(metrics.f1_score(right, said, average="macro", zero_division=0)),
    }
