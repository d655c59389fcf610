"""Several labels per text as a task: from files and an encoder to what the training needs."""

from __future__ import annotations

from typing import Any

from electra_dist.finetune.labelled import Files
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.tasks.multilabel.labels import MultiLabelTask, label_classes
from electra_dist.finetune.tasks.texts.learner import TextLearner
from electra_dist.finetune.training import Learner


def multi_label(files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> Learner:
    """The classes are the labels of the training file."""
    examples = MultiLabelTask(files.columns, ()).read(files.train, files.unlabelled)
    classes = label_classes(examples, files.train)
    task = MultiLabelTask(files.columns, classes, files.clean)
    return TextLearner(task, examples, files, encoder, tokenizer, recipe)
