"""How ELECTRA is fine-tuned: the numbers, and learning rates that fall from the head down to the
embeddings.

The numbers are those of arXiv 2003.10555, appendix B, and its repository (google-research/electra,
configure_finetuning.py). The decay is the one that the paper describes, layer by layer; its code
gives the top layer the factor twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

#: Hidden size from which the paper's numbers for its large model hold.
LARGE = 1024
_LAYER = re.compile(r"^electra\.encoder\.layer\.(\d+)\.")
_EMBEDDINGS = ("electra.embeddings.", "electra.embeddings_project.")
#: Parameters that are not pulled to zero.
_NOT_DECAYED = re.compile(r"(\.bias|LayerNorm\.weight)$")


@dataclass(frozen=True)
class Recipe:
    """What one fine-tuning does.

    layer_decay  multiplies the learning rate from layer to layer
    warmup       fraction of the steps
    stride       overlap of the windows of a long context, tokens; question answering only
    keep_head    start from the head that the model has, instead of a random one
    """

    epochs: float
    lr: float
    layer_decay: float
    batch: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_length: int = 128
    stride: int = 32
    keep_head: bool = False


def default_recipe(hidden_size: int, epochs: float, max_length: int) -> Recipe:
    """The published numbers for a model of this size; `epochs` and `max_length` are the task's.

    Windows overlap by a quarter, as 128 of 512.
    """
    large = hidden_size >= LARGE
    return Recipe(
        epochs=epochs,
        lr=5e-5 if large else 1e-4,
        layer_decay=0.9 if large else 0.8,
        max_length=max_length,
        stride=max_length // 4,
    )


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], layers: int, recipe: Recipe
) -> list[dict[str, object]]:
    """Groups for AdamW: the head at `lr`, layer l of L at `lr * decay^(L - l)`, embeddings at `lr *
    decay^(L + 1)`.

    Raises `ValueError` for a parameter of the encoder that is neither a layer's nor the
    embeddings'.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        decayed = not _NOT_DECAYED.search(name)
        groups.setdefault((_steps_below_the_head(name, layers), decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.lr * recipe.layer_decay**below,
            "weight_decay": recipe.weight_decay if decayed else 0.0,
        }
        for (below, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def _steps_below_the_head(name: str, layers: int) -> int:
    if match := _LAYER.match(name):
        return layers - int(match[1])
    if name.startswith(_EMBEDDINGS):
        return layers + 1
    if name.startswith("electra."):
        raise ValueError(f"{name}: neither a layer nor an embedding of an ELECTRA encoder")
    return 0
