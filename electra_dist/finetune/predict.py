"""A predictor for any folder of ours: a fine-tuned model, a discriminator, a generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Predictor
from electra_dist.finetune.pretrained import DiscriminatorPredictor, GeneratorPredictor
from electra_dist.finetune.registry import TASKS, auto_class_of
from electra_dist.finetune.runners.onnx_runner import Graph, OnnxRunner
from electra_dist.finetune.runners.runner import Runner, TorchRunner


def open_predictor(
    path: Path, device: torch.device, count: int = 5, graph: Graph | None = None
) -> Predictor:
    """Load what lies in the folder `path`; a generator gives `count` fillings per [MASK]. With
    `graph`, onnxruntime runs that graph of the folder on the CPU, and PyTorch nothing.

    Raises `UserError` for a folder that holds no model or not the graph, or one for a task that is
    not known.
    """
    folder = ModelFolder.open(path)
    auto_class = auto_class_of(folder)
    tokenizer = folder.tokenizer()
    runner = _runner(folder, auto_class, tokenizer, device, graph)
    if folder.kind == "generator":
        return GeneratorPredictor(folder, tokenizer, runner, count)
    if folder.kind == "discriminator":
        return DiscriminatorPredictor(folder, tokenizer, runner)
    return TASKS[folder.kind].new_predictor(folder, tokenizer, runner)


def _runner(
    folder: ModelFolder,
    auto_class: str,
    tokenizer: Any,
    device: torch.device,
    graph: Graph | None,
) -> Runner:
    if graph is not None:
        return OnnxRunner.of_folder(folder, graph, tokenizer.pad_token_id)
    return TorchRunner(folder.load(auto_class), tokenizer, device)
