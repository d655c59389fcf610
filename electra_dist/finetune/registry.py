"""The tasks that a discriminator can be fine-tuned for: each is one row of `TASKS`.

Command line, training, prediction and model card read the registry; reading it loads neither torch
nor transformers. A new task is a room of `tasks`: a learner (examples to train on, scores), a
predictor (what a fine-tuned model says), and its row here.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from electra_dist.errors import UserError
from electra_dist.finetune.labelled import Columns, Files

if TYPE_CHECKING:
    from electra_dist.finetune.model_folder import ModelFolder
    from electra_dist.finetune.predictor import TaskPredictor
    from electra_dist.finetune.recipe import Recipe
    from electra_dist.finetune.runners.runner import Runner
    from electra_dist.finetune.training import Learner


_TEXT_AND_LABEL = Columns()


@dataclass(frozen=True)
class Task:
    """What distinguishes one kind of fine-tuning from another.

    name        as the user writes it
    summary     what is learnt, in a few words
    learner     where in `tasks` the learner is made: module and function or class
    predictor   where in `tasks` a fine-tuned model is put to work
    auto_class  of `transformers`, that loads a fine-tuned model
    pipeline    how the hub calls the task, for the card; None where it has no name for it
    columns     names of the columns where the user gives none
    epochs      times over the training examples
    max_length  tokens of an example, where the model has so many positions
    options     fields of the recipe that mean nothing to most tasks, but something to this one
    library     that the card names for loading a fine-tuned model
    cleans      whether its texts can be cleaned first (`finetune.cleaning`)
    """

    name: str
    summary: str
    learner: str
    predictor: str
    auto_class: str
    pipeline: str | None
    columns: Columns = _TEXT_AND_LABEL
    epochs: float = 3
    max_length: int = 128
    options: tuple[str, ...] = ()
    library: str = "transformers"
    cleans: bool = False

    def new_learner(
        self, files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe
    ) -> Learner:
        """The examples of the files encoded, ready to train on."""
        learner: Learner = _named(self.learner)(files, encoder, tokenizer, recipe)
        return learner

    def new_predictor(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> TaskPredictor:
        """The model of the folder, which `runner` runs, at work."""
        predictor: TaskPredictor = _named(self.predictor)(folder, tokenizer, runner)
        return predictor


def check_options(task: str, given: Iterable[str]) -> None:
    """Raise `UserError` for a field of the recipe that means nothing to the task."""
    special = {name for one in _ROWS for name in one.options}
    for name in given:
        if name in special and name not in TASKS[task].options:
            tasks = [one.name for one in _ROWS if name in one.options]
            raise UserError(
                f"`{name}`: means nothing to {task}, only to {', '.join(tasks)}; leave it out"
            )


def _named(name: str) -> Any:
    return pkgutil.resolve_name(f"electra_dist.finetune.tasks.{name}")


_ROWS = (
    Task(
        name="classification",
        summary="one of several classes for a text or a pair of texts",
        learner="texts.learner:classification",
        predictor="texts.predictor:TextPredictor",
        auto_class="AutoModelForSequenceClassification",
        pipeline="text-classification",
        cleans=True,
        options=("label_smoothing", "class_weights"),
    ),
    Task(
        name="multi-label",
        summary="any number of labels for a text or a pair of texts",
        learner="multilabel.learner:multi_label",
        predictor="multilabel.predictor:MultiLabelPredictor",
        auto_class="AutoModelForSequenceClassification",
        pipeline="text-classification",
        cleans=True,
    ),
    Task(
        name="regression",
        summary="a number for a text or a pair of texts",
        learner="texts.learner:regression",
        predictor="texts.predictor:TextPredictor",
        auto_class="AutoModelForSequenceClassification",
        pipeline="text-classification",
        cleans=True,
    ),
    Task(
        name="question-answering",
        summary="the words of a context that answer a question, or that none does",
        learner="questions.learner:QuestionLearner",
        predictor="questions.predictor:QuestionPredictor",
        auto_class="AutoModelForQuestionAnswering",
        pipeline="question-answering",
        columns=Columns(text="question", pair="context", label="answers"),
        epochs=2,
        max_length=512,
        options=("stride",),
    ),
    Task(
        name="token-classification",
        summary="a label for each word: named entities, parts of speech",
        learner="tokens.learner:TokenLearner",
        predictor="tokens.predictor:TokenPredictor",
        auto_class="AutoModelForTokenClassification",
        pipeline="token-classification",
        columns=Columns(text="words", label="labels"),
        options=("stride",),
    ),
    Task(
        name="multiple-choice",
        summary="which of its choices fits a text",
        learner="choices.learner:ChoiceLearner",
        predictor="choices.predictor:ChoicePredictor",
        auto_class="AutoModelForMultipleChoice",
        pipeline="multiple-choice",
        columns=Columns(text="text", pair="choices", label="label"),
        max_length=512,
    ),
    Task(
        name="ranking",
        summary="an order of the candidates of a query",
        learner="ranking.learner:RankingLearner",
        predictor="ranking.predictor:RankingPredictor",
        auto_class="AutoModelForSequenceClassification",
        pipeline="text-ranking",
        columns=Columns(text="query", pair="candidates", label="relevant"),
        max_length=256,
    ),
    Task(
        name="embeddings",
        summary="a vector for a text, near those of texts that belong to it",
        learner="embeddings.learner:PairLearner",
        predictor="embeddings.predictor:EmbeddingPredictor",
        auto_class="AutoModel",
        pipeline="sentence-similarity",
        library="sentence-transformers",
        columns=Columns(pair="pair"),
        options=("temperature",),
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ROWS}
#: Class of `transformers` for each pre-trained network.
_NETWORKS = {"discriminator": "AutoModelForPreTraining", "generator": "AutoModelForMaskedLM"}


def auto_class_of(folder: ModelFolder) -> str:
    """The class of `transformers` that loads what lies in the folder; raises `UserError` for a task
    that is not known.
    """
    from electra_dist.finetune.model_folder import MARKER  # reading it loads NumPy

    if folder.kind in _NETWORKS:
        return _NETWORKS[folder.kind]
    if folder.kind in TASKS:
        return TASKS[folder.kind].auto_class
    raise UserError(
        f"{folder.path / MARKER}: the task {folder.kind!r} is not known; expected one of"
        f" {', '.join(TASKS)}"
    )
