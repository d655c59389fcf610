"""A task with its examples encoded: what the training of every task needs to know of it.

Comes in: an exported encoder and encoded examples. Goes out: models to train, batches, a loss and
scores. The training itself is in `seeds`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorWithPadding

from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.runners.runner import Features, Outputs

#: Of a model's output, the targets (B,), and the examples that the step has on all ranks and
#: micro-batches together: the sum of the losses per example, divided by that number.
Loss = Callable[..., torch.Tensor]


class Learner(ABC):
    """A task with its examples encoded.

    training, held_out   model inputs with targets; `held_out` is empty where there is no such file
    examples             how many there are, by what they are for
    main_score           the score that chooses between seeds; higher is better
    simple               held-out scores of an answer that needs no model
    lower_is_better      scores that are errors
    """

    training: Features
    held_out: Features
    examples: dict[str, int]
    main_score: str
    simple: Scores
    lower_is_better: frozenset[str] = frozenset()

    @abstractmethod
    def new_model(self) -> Any:
        """The encoder with a head that starts at random, from the random state of torch."""

    def collator(self, tokenizer: Any) -> Any:
        """Makes a batch of examples."""
        return DataCollatorWithPadding(tokenizer)

    def loss(self) -> Loss | None:
        """What is trained on in place of the model's own loss, where the recipe asks for it."""
        return None

    def score_names(self) -> tuple[str, ...]:
        """The scores by which an epoch can be chosen."""
        return tuple(dict.fromkeys((self.main_score, *self.simple)))

    @abstractmethod
    def scores(self, outputs: Outputs) -> Scores:
        """Of the model's outputs for `held_out`, in its order."""

    @abstractmethod
    def marker(self, scores: Scores) -> dict[str, Any]:
        """What `predict` needs to know; `scores` are those of the model that is kept."""

    def write_more(self, folder: Path) -> None:  # noqa: B027
        """Add what the task's library needs to the folder of the model; mostly nothing."""
