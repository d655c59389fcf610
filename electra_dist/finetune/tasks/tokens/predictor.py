"""The labels of words, and the entities that they mark, as a fine-tuned model says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from electra_dist.console import warn
from electra_dist.errors import UserError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.model_folder import MARKER, ModelFolder
from electra_dist.finetune.predictor import (
    Prediction,
    Scores,
    TaskPredictor,
    mean_of_classes,
    one_line,
)
from electra_dist.finetune.runners.runner import Array, Outputs, Runner
from electra_dist.finetune.tasks.tokens.reading import TEXT, read_sentences, sentence_of
from electra_dist.finetune.tasks.tokens.schemes import SCHEMES, Entity, entities_of
from electra_dist.finetune.tasks.tokens.sentences import Sentence
from electra_dist.finetune.tasks.tokens.tags import TagTask
from electra_dist.finetune.tasks.tokens.windows import make_windows

_WHERE = ("label", "start", "end", "probability")


class TokenPredictor(TaskPredictor):
    """A model for token classification. An item is a text, or a list of words."""

    kind = "token-classification"
    fields = (TEXT,)

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> None:
        self._task = _tag_task(folder)
        self._tokenizer = tokenizer
        self._runner = runner
        self._max_length = int(folder.fact("max_length"))
        self._stride = int(folder.fact("stride"))
        self.header = ("text", "word", *_WHERE)
        if self._task.marks_entities:
            self.header = ("text", "entity", *_WHERE)

    def read(self, path: Path) -> list[Sentence]:
        """Sentences, labelled or not."""
        return read_sentences(path, self._task.columns)

    def item(self, fields: Mapping[str, Any], place: str) -> Sentence:
        """A text under `text`, or words under the name that they had in training."""
        return sentence_of(fields, self._task.columns, place)

    def outputs(self, items: Sequence[Sentence]) -> Outputs:
        """The logits (N, C) of the words of each."""
        windows = make_windows(
            items, self._tokenizer, self._max_length, self._stride, "what is to be labelled"
        )
        found = self._runner(windows.features())
        return [(logits,) for logits in windows.by_word(found, len(self._task.labels))]

    def predictions(self, items: Sequence[Sentence], outputs: Outputs) -> list[Prediction]:
        """The most likely label of each word, and the entities of these labels."""
        return [
            self._prediction(number, sentence, logits)
            for number, (sentence, (logits, *_)) in enumerate(zip(items, outputs, strict=True), 1)
        ]

    def _prediction(
        self, number: int, sentence: Sentence, logits: NDArray[np.float32]
    ) -> Prediction:
        labels = self._labels(logits)
        probabilities = softmax(logits, axis=1).max(axis=1, initial=0.0).tolist()
        content: dict[str, Any] = {
            "text": sentence.text,
            "words": sentence.words,
            "labels": labels,
            "probabilities": probabilities,
        }
        if self._task.marks_entities:
            shown = entities_of(labels)
        else:
            shown = [Entity(index, index + 1, label) for index, label in enumerate(labels)]
        found = [_found(sentence, entity, probabilities) for entity in shown]
        if self._task.marks_entities:
            content["entities"] = found
        return Prediction([_cells(number, one) for one in found], content)

    def _labels(self, logits: NDArray[np.float32]) -> list[str]:
        return self._task.written(self._task.named(logits.argmax(axis=1).tolist()))

    def scores(self, items: Sequence[Sentence], outputs: Outputs, source: Path) -> Scores:
        """Of the sentences with labels; raises `DataError` for a label that is unknown."""
        labelled = [index for index, one in enumerate(items) if one.labels and one.spans]
        if not labelled:
            return {}
        if len(labelled) < len(items):
            warn(
                f"{source}: {len(items) - len(labelled):,} of {len(items):,} sentences have no"
                " labels; the scores are of the others"
            )
        targets = self._task.targets([items[index] for index in labelled], source)
        return self._task.scores([self._labels(outputs[index][0]) for index in labelled], targets)

    def mean(self, arrays: Sequence[Array]) -> Array:
        """Of the probabilities of the labels of each word."""
        return mean_of_classes(arrays)


def _found(sentence: Sentence, entity: Entity, probabilities: Sequence[float]) -> dict[str, Any]:
    """The words of an entity; its probability is the mean of theirs."""
    start = sentence.spans[entity.start][0]
    end = sentence.spans[entity.end - 1][1]
    return {
        "text": sentence.text[start:end],
        "label": entity.kind,
        "start": start,
        "end": end,
        "probability": float(np.mean(probabilities[entity.start : entity.end])),
    }


def _cells(number: int, found: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table; `text` there is the number of the text."""
    return (
        str(number),
        one_line(found["text"]),
        found["label"],
        str(found["start"]),
        str(found["end"]),
        f"{found['probability']:.4f}",
    )


def _tag_task(folder: ModelFolder) -> TagTask:
    """The task that a folder was fine-tuned for, as its marker describes it; raises `UserError`."""
    labels = folder.fact("labels")
    names = folder.fact("columns")
    scheme = folder.fact("scheme")
    if scheme not in SCHEMES:
        raise UserError(
            f"{folder.path / MARKER}: 'scheme' is {scheme!r}; expected one of {', '.join(SCHEMES)}"
        )
    try:
        return TagTask(Columns(**names), tuple(map(str, labels)), scheme)
    except TypeError as error:
        raise UserError(f"{folder.path / MARKER}: does not describe the task ({error})") from error
