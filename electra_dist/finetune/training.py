"""Fine-tuning one seed: model, optimizer and `transformers.Trainer` around the examples of a task.

Comes in: an exported encoder, the task, encoded examples. Goes out: the trained model and the
scores of every epoch.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from electra_dist.console import human_seconds, say, warn
from electra_dist.errors import UserError
from electra_dist.finetune.recipe import Recipe, parameter_groups

#: Examples at a time where no gradient is needed.
EVALUATION_BATCH = 128
#: Progress lines of a seed, about.
_LINES = 20

Features = Sequence[dict[str, Any]]
Scores = dict[str, float]


class Learner(ABC):
    """A task with its examples encoded.

    training, held_out   model inputs with targets; `held_out` is empty where there is no such file
    examples             how many there are, by what they are for
    main_score           the score that chooses between seeds; higher is better
    simple               held-out scores of an answer that needs no model
    """

    training: Features
    held_out: Features
    examples: dict[str, int]
    main_score: str
    simple: Scores

    @abstractmethod
    def new_model(self) -> Any:
        """The encoder with a head that starts at random, from the random state of torch."""

    @abstractmethod
    def scores(self, logits: Any) -> Scores:
        """Of the model's outputs for `held_out`, in its order."""

    @abstractmethod
    def marker(self, scores: Scores) -> dict[str, Any]:
        """What `predict` needs to know;
        `scores` are those of the model that is kept, after its last epoch.
        """


@dataclass(frozen=True)
class Trained:
    """One seed: the model after the last epoch, and the held-out scores
    after each epoch (empty without such data).
    """

    seed: int
    model: Any
    epochs: list[Scores]
    seconds: float


class _Examples(Dataset[dict[str, Any]]):
    def __init__(self, features: Features) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._features[index])


def train_seed(
    learner: Learner, tokenizer: Any, recipe: Recipe, seed: int, device: torch.device
) -> Trained:
    """Train a new head and the encoder under it; the same on the same machine for the same seed."""
    started = time.monotonic()
    set_seed(seed)
    model = learner.new_model()
    groups = parameter_groups(model.named_parameters(), model.config.num_hidden_layers, recipe)
    steps = _steps(len(learner.training), recipe)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, eps=1e-6, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, round(recipe.warmup * steps), steps)
    progress = _Progress(seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=_training_arguments(folder, recipe, steps, seed, device, bool(learner.held_out)),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=_Examples(learner.training),
            eval_dataset=_Examples(learner.held_out) if learner.held_out else None,
            compute_metrics=lambda outcome: _scores_of(learner, outcome.predictions),
            optimizers=(optimizer, schedule),
            callbacks=[progress],
        )
        trainer.remove_callback(PrinterCallback)  # prints dictionaries
        trainer.train()
    return Trained(seed, model, progress.epochs, time.monotonic() - started)


def _scores_of(learner: Learner, logits: Any) -> Scores:
    """The scores, or none with a warning: what fails here never costs the model."""
    try:
        return learner.scores(logits)
    except Exception as error:
        reason = str(error) or type(error).__name__
        warn(f"the held-out scores cannot be computed ({reason}); training goes on without them")
        return {}


def predict_logits(model: Any, tokenizer: Any, features: Features, device: torch.device) -> Any:
    """Outputs of the model for every example, in order:
    an array, or a tuple of arrays where it has several.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=_arguments(folder, device),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        return trainer.predict(_Examples(features)).predictions


def _steps(examples: int, recipe: Recipe) -> int:
    return max(1, round(-(-examples // recipe.batch) * recipe.epochs))


def _training_arguments(
    folder: str, recipe: Recipe, steps: int, seed: int, device: torch.device, evaluates: bool
) -> TrainingArguments:
    return _arguments(
        folder,
        device,
        max_steps=steps,
        per_device_train_batch_size=recipe.batch,
        max_grad_norm=1.0,
        seed=seed,
        bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
        eval_strategy="epoch" if evaluates else "no",
        logging_steps=max(1, steps // _LINES),
        logging_nan_inf_filter=False,
    )


def _arguments(folder: str, device: torch.device, **more: Any) -> TrainingArguments:
    """Of a trainer on one device that saves nothing and reports to nobody but us."""
    # accelerate imports DeepSpeed, which warns where it has to guess
    os.environ["DS_ACCELERATOR"] = device.type
    arguments = TrainingArguments(
        output_dir=folder,
        use_cpu=device.type == "cpu",
        per_device_eval_batch_size=EVALUATION_BATCH,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **more,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several would make the batch larger in silence
    return arguments


class _Progress(TrainerCallback):
    """A line a logging interval, and one with the scores after each epoch."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._started = time.monotonic()
        self.epochs: list[Scores] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Print the mean loss since the last line;
        the final summary, which has none, is left out.
        """
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise UserError(
                f"seed {self._seed}: the loss is {loss} at step {state.global_step}; take a smaller"
                " `lr`"
            )
        rate = state.global_step / max(time.monotonic() - self._started, 1e-9)
        left = (state.max_steps - state.global_step) / max(rate, 1e-9)
        say(
            f"seed {self._seed}  step"
            f" {state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}  epoch"
            f" {state.epoch:.2f}  loss {loss:.4f}  lr {float(logs['learning_rate']):.1e} "
            f" {rate * args.per_device_train_batch_size:.0f} examples/s  {human_seconds(left)} left"
        )

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **others: Any
    ) -> None:
        """Keep and print the scores of the epoch."""
        own = (
            "loss",
            "runtime",
            "samples_per_second",
            "steps_per_second",
            "model_preparation_time",
        )
        scores = {
            name.removeprefix("eval_"): float(value)
            for name, value in metrics.items()
            if name != "epoch"
        }
        scores = {name: value for name, value in scores.items() if name not in own}
        self.epochs.append(scores)
        text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        say(f"seed {self._seed}  after epoch {state.epoch:.2f}  held out  {text}")


def as_array(values: Any) -> np.ndarray[Any, Any]:
    """An output of `predict_logits` as fp32."""
    return np.asarray(values, dtype=np.float32)
