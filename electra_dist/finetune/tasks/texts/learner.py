"""Classification and regression as tasks: from files and an encoder to what the training needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from electra_dist.console import say, warn
from electra_dist.errors import UserError
from electra_dist.finetune.labelled import Example, Files, read_examples
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.runners.runner import Outputs
from electra_dist.finetune.tasks.texts.labels import TextTask, classes
from electra_dist.finetune.tasks.texts.loss import ClassLoss, balanced_weights
from electra_dist.finetune.training import Learner, Loss


class TextLearner(Learner):
    """Classification or regression, or what a task that derives from `TextTask` makes of texts."""

    lower_is_better = frozenset({"mean_squared_error"})

    def __init__(
        self,
        task: TextTask,
        examples: list[Example],
        files: Files,
        encoder: ModelFolder,
        tokenizer: Any,
        recipe: Recipe,
    ):
        """`examples` are those of `files.train`."""
        self._task = task
        self._encoder = encoder
        self._recipe = recipe
        length = recipe.max_length
        if recipe.keep_head:
            _check_head(encoder, task)
        self.main_score = task.main_score
        targets = task.targets(examples, files.train)
        self._targets = targets
        say(f"{files.train}: {task.counts(targets)}")
        self.training = task.labelled(task.features(tokenizer, examples, length), targets)
        self.examples = {"to train on": len(examples)}
        self.held_out = []
        self.simple = {}
        self._dev_targets = np.zeros(0)
        if files.dev is not None:
            held_out = task.read(files.dev, files.unlabelled)
            self._dev_targets = task.targets(held_out, files.dev)
            say(f"{files.dev}: {task.counts(self._dev_targets)}")
            absent = task.absent(self._dev_targets)
            if absent:
                warn(
                    f"{files.dev}: has no example of {_listed(absent)}; its scores tell nothing of"
                    " them"
                )
            self.held_out = task.labelled(
                task.features(tokenizer, held_out, length), self._dev_targets
            )
            self.examples["held out"] = len(held_out)
            self.simple = task.simple_scores(targets, self._dev_targets)

    def new_model(self) -> Any:
        """One output a class, or one number."""
        labels = self._task.labels
        head: dict[str, Any] = {"num_labels": 1, "problem_type": self._task.problem_type}
        if labels is not None:
            names = dict(enumerate(labels))
            head |= {
                "num_labels": len(labels),
                "id2label": names,
                "label2id": {name: index for index, name in names.items()},
            }
        return self._encoder.load(
            "AutoModelForSequenceClassification", new_head=not self._recipe.keep_head, **head
        )

    def loss(self) -> Loss | None:
        """Cross-entropy with what the recipe changes of it; None where it changes nothing."""
        labels = self._task.labels
        recipe = self._recipe
        balanced = recipe.class_weights == "balanced"
        one_class = self._task.problem_type == "single_label_classification"
        if labels is None or not one_class or not (balanced or recipe.label_smoothing):
            return None
        weights = None
        if balanced:
            weights = balanced_weights(self._targets, len(labels))
        return ClassLoss(recipe.label_smoothing, weights)

    def scores(self, outputs: Outputs) -> Scores:
        logits = np.stack([output[0] for output in outputs])
        return self._task.scores(logits, self._dev_targets)

    def marker(self, scores: Scores) -> dict[str, Any]:
        return self._task.to_dict() | {"max_length": self._recipe.max_length}


def _check_head(encoder: ModelFolder, task: TextTask) -> None:
    """Raise `UserError` where the head of the encoder has other outputs than the task."""
    known = encoder.fact("labels")
    if known is not None:
        known = tuple(map(str, known))
    if known != task.labels:
        raise UserError(
            f"`keep_head`: {encoder.path} was fine-tuned for the classes {_listed(known)}, but the"
            f" training data has {_listed(task.labels)}; leave it out to start a new head"
        )


def _listed(labels: tuple[str, ...] | None) -> str:
    return ", ".join(map(repr, (labels or ())[:10]))


def classification(files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> Learner:
    """The classes are the labels of the training file."""
    examples = read_examples(files.train, files.columns, files.unlabelled)
    task = TextTask(files.columns, classes(examples, files.train), files.clean)
    return TextLearner(task, examples, files, encoder, tokenizer, recipe)


def regression(files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> Learner:
    """The labels are numbers."""
    examples = read_examples(files.train, files.columns, files.unlabelled)
    task = TextTask(files.columns, None, files.clean)
    return TextLearner(task, examples, files, encoder, tokenizer, recipe)
