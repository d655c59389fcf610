"""A predictor for any folder of ours: a fine-tuned model, a discriminator, a generator."""

from __future__ import annotations

from pathlib import Path

import torch

from electra_dist.errors import UserError
from electra_dist.finetune.model_folder import MARKER, ModelFolder
from electra_dist.finetune.predictor import Predictor
from electra_dist.finetune.pretrained import DiscriminatorPredictor, GeneratorPredictor
from electra_dist.finetune.registry import TASKS
from electra_dist.finetune.runner import TorchRunner


def open_predictor(path: Path, device: torch.device, count: int = 5) -> Predictor:
    """Load what lies in the folder `path`; a generator gives `count` fillings per [MASK].

    Raises `UserError` for a folder that holds no model, or one for a task that is not known.
    """
    folder = ModelFolder.open(path)
    tokenizer = folder.tokenizer()
    if folder.kind == "generator":
        return GeneratorPredictor(folder, tokenizer, device, count)
    if folder.kind == "discriminator":
        model = folder.load("AutoModelForPreTraining")
        return DiscriminatorPredictor(folder, tokenizer, TorchRunner(model, tokenizer, device))
    if folder.kind not in TASKS:
        raise UserError(
            f"{path / MARKER}: the task {folder.kind!r} is not known; expected one of"
            f" {', '.join(TASKS)}"
        )
    task = TASKS[folder.kind]
    model = folder.load(task.auto_class)
    return task.new_predictor(folder, tokenizer, TorchRunner(model, tokenizer, device))
