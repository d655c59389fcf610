"""Classes or numbers of texts, as a fine-tuned model says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from electra_dist.console import warn
from electra_dist.errors import DataError, UserError
from electra_dist.finetune.cleaning import check_steps
from electra_dist.finetune.labelled import Columns, Example
from electra_dist.finetune.model_folder import MARKER, ModelFolder
from electra_dist.finetune.predictor import (
    Prediction,
    Scores,
    TaskPredictor,
    mean_of_classes,
    one_line,
)
from electra_dist.finetune.runners.runner import Array, Outputs, Runner
from electra_dist.finetune.tasks.texts.labels import TextTask

#: The label of a class that stands for none, where no class has this name.
NOT_LABELLED = "-1"


class TextPredictor(TaskPredictor):
    """A model for classification or regression.

    A label of -1 that is no class says that nobody has labelled the example, as GLUE's test files
    do; scores are of those with a label.
    """

    task_type: type[TextTask] = TextTask

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> None:
        self._task = text_task(folder, self.task_type)
        self._tokenizer = tokenizer
        self._runner = runner
        self._max_length = int(folder.fact("max_length"))
        self.kind = self._task.name
        self.header = ("predicted", "probability", "text")
        if self._task.labels is None:
            self.header = ("predicted", "text")
        columns = self._task.columns
        self.fields = (columns.text, columns.pair) if columns.pair else (columns.text,)

    def read(self, path: Path) -> list[Example]:
        """Examples, labelled or not."""
        examples = self._task.read(path)
        columns = self._task.columns
        if columns.pair and any(example.pair is None for example in examples):
            raise DataError(
                f"{path}: single texts, but the model was trained on pairs; give a table with the"
                f" columns {columns.text} and {columns.pair}"
            )
        return examples

    def item(self, fields: Mapping[str, Any], place: str) -> Example:
        """Its texts, as strings."""
        texts = [fields.get(name) for name in self.fields]
        for name, text in zip(self.fields, texts, strict=True):
            if not isinstance(text, str):
                raise DataError(f"{place}: {name!r} is {text!r}; expected a text")
        pair = texts[1] if len(texts) > 1 else None
        return Example(str(texts[0]), pair)

    def outputs(self, items: Sequence[Example]) -> Outputs:
        """The logits (C,) of each, or its number (1,)."""
        return self._runner(self._task.features(self._tokenizer, items, self._max_length))

    def predictions(self, items: Sequence[Example], outputs: Outputs) -> list[Prediction]:
        """The class with the highest probability, or the number, or what a derived class says."""
        return [
            self.prediction(example, logits)
            for example, (logits, *_) in zip(items, outputs, strict=True)
        ]

    def prediction(self, example: Example, logits: NDArray[np.float32]) -> Prediction:
        """Of one example."""
        given = given_texts(example)
        shown = one_line(" | ".join(given.values()))
        if self._task.labels is None:
            value = float(logits.reshape(-1)[0])
            return Prediction([(f"{value:.4f}", shown)], given | {"predicted": value})
        values = softmax(logits).tolist()
        probabilities = dict(zip(self._task.labels, values, strict=True))
        best = max(probabilities, key=lambda label: probabilities[label])
        content = given | {"predicted": best, "probabilities": probabilities}
        return Prediction([(best, f"{probabilities[best]:.4f}", shown)], content)

    def scores(self, items: Sequence[Example], outputs: Outputs, source: Path) -> Scores:
        """Raises `DataError` when a label is unknown."""
        targets = self._task.targets(items, source, unlabelled=NOT_LABELLED)
        known = ~np.isnan(targets.reshape(len(items), -1)).any(axis=1)
        if not known.any():
            return {}
        if not known.all():
            warn(
                f"{source}: {int((~known).sum()):,} of {len(items):,} examples have no label; the"
                " scores are of the others"
            )
        logits = np.stack([output[0] for output in outputs])
        return self._task.scores(logits[known], targets[known])

    def mean(self, arrays: Sequence[Array]) -> Array:
        """Of the probabilities of the classes, or of the numbers."""
        if self._task.labels is None:
            return super().mean(arrays)
        return mean_of_classes(arrays)


def given_texts(example: Example) -> dict[str, str]:
    """The texts of the example as they were given, for programs."""
    if example.pair is None:
        return {"text": example.text}
    return {"text": example.text, "pair": example.pair}


def text_task(folder: ModelFolder, task_type: type[TextTask] = TextTask) -> TextTask:
    """The task that a folder was fine-tuned for, as its marker describes it; raises `UserError`."""
    labels = folder.fact("labels")
    names = folder.fact("columns")
    steps = folder.marker.get("clean", ())  # folders of earlier versions have none
    try:
        if labels is not None:
            labels = tuple(map(str, labels))
        task = task_type(Columns(**names), labels, tuple(map(str, steps)))
    except TypeError as error:
        raise UserError(f"{folder.path / MARKER}: does not describe the task ({error})") from error
    outputs = folder.config.get("id2label")
    if outputs is not None and len(outputs) != task.outputs:
        raise UserError(
            f"{folder.path / MARKER}: describes {task.name} with {task.outputs} outputs, but"
            f" config.json has {len(outputs)}"
        )
    check_steps(task.clean, f"{folder.path / MARKER}: clean")
    return task
