"""The tasks by name: from files and an encoder to what the training needs.

Each is a function `(train, dev, columns, encoder, tokenizer, recipe) -> Learner`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.finetune.answering import QuestionLearner
from electra_dist.finetune.labelled import Columns, read_examples
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.texts import TextTask, classes, classification_scores, regression_scores
from electra_dist.finetune.training import Learner, Scores, as_array


class TextLearner(Learner):
    """Classification or regression."""

    def __init__(
        self,
        task: TextTask,
        train: Path,
        dev: Path | None,
        encoder: ModelFolder,
        tokenizer: Any,
        length: int,
    ):
        self._task = task
        self._encoder = encoder
        self._length = length
        self.main_score = task.main_score
        examples = task.read(train)
        targets = task.targets(examples, train)
        self.training = task.labelled(task.features(tokenizer, examples, length), targets)
        self.examples = {"to train on": len(examples)}
        self.held_out = []
        self.simple = {}
        self._dev_targets = np.zeros(0)
        if dev is not None:
            held_out = task.read(dev)
            self._dev_targets = task.targets(held_out, dev)
            self.held_out = task.labelled(
                task.features(tokenizer, held_out, length), self._dev_targets
            )
            self.examples["held out"] = len(held_out)
            self.simple = _without_model(task, targets, self._dev_targets)

    def new_model(self) -> Any:
        """One output a class, or one number."""
        labels = self._task.labels
        if labels is None:
            head: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
        else:
            names = dict(enumerate(labels))
            head = {
                "num_labels": len(labels),
                "id2label": names,
                "label2id": {name: index for index, name in names.items()},
                "problem_type": "single_label_classification",
            }
        return self._encoder.load("AutoModelForSequenceClassification", new_head=True, **head)

    def scores(self, logits: Any) -> Scores:
        return self._task.scores(as_array(logits), self._dev_targets)

    def marker(self, scores: Scores) -> dict[str, Any]:
        return self._task.to_dict() | {"max_length": self._length}


def _without_model(
    task: TextTask, training: np.ndarray[Any, Any], held_out: np.ndarray[Any, Any]
) -> Scores:
    """Scores of the most frequent training label, or of the mean."""
    if task.labels is None:
        return regression_scores(np.full(len(held_out), training.mean()), held_out)
    most = np.bincount(training.astype(int)).argmax()
    return classification_scores(np.full(len(held_out), most), held_out.astype(int))


def classification(
    train: Path,
    dev: Path | None,
    columns: Columns,
    encoder: ModelFolder,
    tokenizer: Any,
    recipe: Recipe,
) -> Learner:
    """The classes are the labels of the training file."""
    labels = classes(read_examples(train, columns, labelled=True), train)
    return TextLearner(TextTask(columns, labels), train, dev, encoder, tokenizer, recipe.max_length)


def regression(
    train: Path,
    dev: Path | None,
    columns: Columns,
    encoder: ModelFolder,
    tokenizer: Any,
    recipe: Recipe,
) -> Learner:
    """The labels are numbers."""
    return TextLearner(TextTask(columns, None), train, dev, encoder, tokenizer, recipe.max_length)


def question_answering(
    train: Path,
    dev: Path | None,
    columns: Columns,
    encoder: ModelFolder,
    tokenizer: Any,
    recipe: Recipe,
) -> Learner:
    """SQuAD 1.1 or 2.0; `columns` say nothing here."""
    return QuestionLearner(train, dev, encoder, tokenizer, recipe)


Prepare = Callable[[Path, Path | None, Columns, ModelFolder, Any, Recipe], Learner]
TASKS: dict[str, Prepare] = {
    "classification": classification,
    "regression": regression,
    "question-answering": question_answering,
}
