"""What may change between two starts of a run, and what the change does.

    free     how and where it runs, not what it computes: any start may change it
    future   what the steps to come compute; those behind keep their meaning: changed when the user
             says so
    past     what the steps behind would mean: belongs to the run for good

Needs no torch, so that `launch` asks before it submits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from electra_dist.config import NETWORKS, Config, decay_start, lr_factor
from electra_dist.objectives import objectives

Kind = Literal["free", "future", "past"]
FREE_SECTIONS = ("run", "zero", "checkpoint", "validation", "tracking", "guard", "watchdog")
FREE_KEYS = (
    # their content and the shares are compared by fingerprint instead
    "data.shards",
    "data.sources",
    "data.temperature",
    "data.cache",
    "data.cache_bytes",
    "data.prefetch_steps",
    "data.verify",
    "model.attention",
    "model.generator_head",
    "train.micro_rows",
    "train.device",
    "train.compile",
    "train.cuda_graphs",
    "train.activation_checkpointing",
    "train.deterministic",
)
FUTURE_SECTIONS = ("optim", "precision")
FUTURE_KEYS = (
    "data.mask_fraction",
    "data.mask_token_fraction",
    "data.skip_steps",
    "model.dropout",
    "model.attention_dropout",
    "model.temperature",
    "train.steps",
    "zero.communication_data_type",
)


def kind_of(key: str) -> Kind:
    """Which of the three a key is."""
    section = key.split(".")[0]
    weights = [objective.weight for objective in objectives()]
    if section in FUTURE_SECTIONS or key in FUTURE_KEYS or key in weights:
        return "future"
    if section in FREE_SECTIONS or key in FREE_KEYS:
        return "free"
    return "past"


@dataclass(frozen=True)
class Change:
    """A key with two values, as JSON has them."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r}"


def changes(old: Config, new: Config, kind: Kind) -> list[Change]:
    """Every key of this kind that differs."""
    before = _flat(old.model_dump(mode="json"))
    after = _flat(new.model_dump(mode="json"))
    names = [key for key in before | after if kind_of(key) == kind]
    return [
        Change(key, before.get(key), after.get(key))
        for key in names
        if before.get(key) != after.get(key)
    ]


def listed(found: Sequence[Change]) -> str:
    """`optim.lr: 0.001 -> 0.002; train.steps: 100 -> 200`."""
    return "; ".join(map(str, found))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat |= {f"{prefix}{key}": value}
    return flat


# --- the learning rate ----------------------------------------------------------------------------


def learning_rate(old: Config, new: Config, step: int) -> str:
    """`learning rate of step 12: 0.0001 -> 0.0015`, of each network where they differ;
    `step` is the next to train.
    """
    rates = {
        network: (_rate(old, network, step), _rate(new, network, step)) for network in NETWORKS
    }
    texts = {network: f"{before:.3g} -> {after:.3g}" for network, (before, after) in rates.items()}
    if len(set(texts.values())) == 1:
        return f"learning rate of step {step + 1}: {texts[NETWORKS[0]]}"
    return f"learning rate of step {step + 1}: " + ", ".join(
        f"{name} {text}" for name, text in texts.items()
    )


def _rate(config: Config, network: Any, step: int) -> float:
    return lr_factor(step, config.train.steps, config.optim) * config.optimizer(network).lr


def _first_below_peak(config: Config) -> int | None:
    """The first step whose rate is below the peak, after the warm-up; None when there is none."""
    optim = config.optim
    if optim.final_lr_fraction == 1:
        return None
    return decay_start(config.train.steps, optim)


def about_the_decay(old: Config, new: Config, step: int, checkpoints: Sequence[int]) -> str:
    """What to know before a run is made longer whose rate has come down already;
    empty where there is nothing.
    """
    start = _first_below_peak(old)
    if (
        new.train.steps <= old.train.steps
        or old.optim.schedule != "wsd"
        or start is None
        or step <= start
    ):
        return ""
    before = [saved for saved in checkpoints if saved <= start]
    if before:
        return (
            f" The decay of schedule wsd began after step {start}: from a checkpoint before it the"
            f" longer run has no dip in its rate (`from_step` {before[-1]})"
        )
    return (
        f" The decay of schedule wsd began after step {start}, and no checkpoint from before it is"
        " left (next time keep some: checkpoint.milestones_every)"
    )
