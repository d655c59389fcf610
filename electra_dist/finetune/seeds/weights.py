"""Weights of a seed as a file, and as the folder of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from electra_dist.files.writing import open_to_readers, whole_file, write_json
from electra_dist.finetune.model_folder import MARKER, WEIGHTS, ModelFolder
from electra_dist.finetune.own_files import file_digests


def save_weights(model: Any, path: Path) -> None:
    """Write every tensor of the model, whole or not at all."""
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(state, temporary)


def write_model(folder: Path, model: Any, source: ModelFolder) -> None:
    """Write the model in fp32 with the tokenizer of `source`."""
    model.to("cpu").float().save_pretrained(folder)
    open_to_readers(folder / WEIGHTS)
    source.copy_tokenizer(folder)


def write_marker(folder: Path, marker: dict[str, Any]) -> None:
    """Write what the model is, with a list of the files that lie in its folder by now."""
    write_json(folder / MARKER, {**marker, "files": file_digests(folder)})
