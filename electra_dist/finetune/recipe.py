"""How ELECTRA is fine-tuned: the numbers, and learning rates that fall from the head down to the
embeddings.

The numbers are those of arXiv 2003.10555, appendix B, and its repository (google-research/electra,
configure_finetuning.py). The decay is the one that the paper describes, layer by layer; its code
gives the top layer the factor twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from electra_dist.errors import UserError

#: Hidden size from which the paper's numbers for its large model hold.
LARGE = 1024
_LAYER = re.compile(r"^electra\.encoder\.layer\.(\d+)\.")
_EMBEDDINGS = ("electra.embeddings.", "electra.embeddings_project.")
#: Parameters that are not pulled to zero.
_NOT_DECAYED = re.compile(r"(\.bias|LayerNorm\.weight)$")

#: Name -> what `transformers.get_scheduler` calls it; all of them begin with the warm-up.
SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
    "polynomial": "polynomial",
    "inverse-sqrt": "inverse_sqrt",
}
#: What a word of the recipe may be.
_WORDS: dict[str, tuple[str, ...]] = {
    "schedule": tuple(SCHEDULES),
    "class_weights": ("none", "balanced"),
    "keep": ("best", "last"),
}
#: What needs held-out examples.
_NEED_HELD_OUT = ("patience", "metric")


@dataclass(frozen=True)
class Recipe:
    """What one fine-tuning does.

    layer_decay      multiplies the learning rate from layer to layer
    batch            examples per step, of all ranks together
    warmup           fraction of the steps
    stride           overlap of the windows of a long context, tokens; question answering and token
                     classification only
    keep_head        start from the head that the model has, instead of a random one
    temperature      divides the cosines in the loss; embeddings only
    accumulate       micro-batches that a rank cuts its examples of a step into
    schedule         how the learning rate falls after the warm-up, a name of `SCHEDULES`
    max_norm         gradients are cut to this norm
    dropout          everywhere in the network; None for what the model's configuration has
    freeze           lowest layers that learn nothing, nor do the embeddings; 0 for these alone
    label_smoothing  share of the target that is spread over all classes
    class_weights    `balanced`: a class weighs inversely to how often it occurs
    patience         evaluations without a better score after which a seed ends
    metric           the held-out score that chooses epoch and seed; None for the task's main one
    keep             `best` or `last`: the epoch whose weights are kept
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
    temperature: float = 0.05
    accumulate: int = 1
    schedule: str = "linear"
    max_norm: float = 1.0
    dropout: float | None = None
    freeze: int | None = None
    label_smoothing: float = 0.0
    class_weights: str = "none"
    patience: int | None = None
    metric: str | None = None
    keep: str = "last"


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


# --- what the user gives --------------------------------------------------------------------------


def with_given(recipe: Recipe, given: Mapping[str, Any], positions: int, layers: int) -> Recipe:
    """`recipe` with what the user gave; raises `UserError` naming the option.

    With `patience`, the best epoch is kept where nothing else is said.
    """
    above: dict[str, tuple[float, float]] = {
        "epochs": (0, 1000),
        "lr": (0, 1),
        "layer_decay": (0, 1),
        "max_norm": (0, 1e6),
        "temperature": (0, 10),
    }
    within: dict[str, tuple[float, float]] = {
        "batch": (1, 100_000),
        "accumulate": (1, 100_000),
        "warmup": (0, 1),
        "weight_decay": (0, 1),
        "dropout": (0, 0.9),
        "label_smoothing": (0, 0.9),
        "freeze": (0, layers),
        "patience": (1, 1000),
        "max_length": (8, positions),
        "stride": (0, recipe.max_length - 1),
    }
    for name, value in given.items():
        if name in _WORDS:
            _check_word(name, value)
        elif name in above or name in within:
            _check_number(name, value, above, within)
    if given.get("patience") is not None and "keep" not in given:
        given = {**given, "keep": "best"}
    return replace(recipe, **given)


def _check_word(name: str, value: str) -> None:
    if value not in _WORDS[name]:
        raise UserError(f"`{name}` {value}: expected one of {', '.join(_WORDS[name])}")


def _check_number(
    name: str,
    value: float,
    above: Mapping[str, tuple[float, float]],
    within: Mapping[str, tuple[float, float]],
) -> None:
    low, high = {**above, **within}[name]
    if low <= value <= high and not (name in above and value == low):
        return
    if name in above:
        expected = f"above {low:g} and up to {high:g}"
    else:
        expected = f"from {low:g} to {high:g}"
    reasons = {"max_length": " (the encoder's positions)", "freeze": " (the encoder's layers)"}
    raise UserError(f"`{name}` {value:g}: expected {expected}{reasons.get(name, '')}")


def check_held_out(recipe: Recipe, held_out: bool) -> None:
    """Raise `UserError` for what needs held-out examples where there are none."""
    if held_out:
        return
    wanted = [name for name in _NEED_HELD_OUT if getattr(recipe, name) is not None]
    if recipe.keep == "best" and not wanted:
        wanted = ["keep"]
    if wanted:
        raise UserError(
            f"`{wanted[0]}` {getattr(recipe, wanted[0])}: needs held-out examples; give `dev`"
        )


def micro_batch(recipe: Recipe, world_size: int) -> int:
    """Examples that a rank takes at a time; raises `UserError` where they are no whole number."""
    parts = recipe.accumulate * world_size
    if recipe.batch % parts:
        raise UserError(
            f"`batch` {recipe.batch}: cannot be cut into {recipe.accumulate} micro-batches"
            f" (`accumulate`) on each of {world_size} ranks; give a multiple of {parts}"
        )
    return recipe.batch // parts


# --- what the recipe does to a model --------------------------------------------------------------


def prepare(model: nn.Module, layers: int, recipe: Recipe) -> None:
    """Give the model the dropout of the recipe, and freeze what is to be frozen."""
    if recipe.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
    if recipe.freeze is not None:
        for name, parameter in model.named_parameters():
            # counted from the head: the lowest layer is `layers` steps below it
            if _steps_below_the_head(name, layers) > layers - recipe.freeze:
                parameter.requires_grad_(False)


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], layers: int, recipe: Recipe
) -> list[dict[str, object]]:
    """Groups for AdamW: the head at `lr`, layer l of L at `lr * decay^(L - l)`, embeddings at `lr *
    decay^(L + 1)`. Frozen parameters are in none.

    Raises `ValueError` for a parameter of the encoder that is neither a layer's nor the
    embeddings'.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        below = _steps_below_the_head(name, layers)
        if not parameter.requires_grad:
            continue
        decayed = not _NOT_DECAYED.search(name)
        groups.setdefault((below, decayed), []).append(parameter)
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
