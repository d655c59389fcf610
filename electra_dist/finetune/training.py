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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe, parameter_groups
from electra_dist.finetune.runner import Features, Outputs, Runner, TorchRunner

#: Called with seed, epoch and held-out scores; True ends the training of the seed.
AfterEpoch = Callable[[int, float, Scores], bool]
#: Progress lines of a seed, about.
_LINES = 20


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

    def collator(self, tokenizer: Any) -> Any:
        """Makes a batch of examples."""
        return DataCollatorWithPadding(tokenizer)

    @abstractmethod
    def scores(self, outputs: Outputs) -> Scores:
        """Of the model's outputs for `held_out`, in its order."""

    @abstractmethod
    def marker(self, scores: Scores) -> dict[str, Any]:
        """What `predict` needs to know;
        `scores` are those of the model that is kept, after its last epoch.
        """


class NotFiniteLossError(UserError):
    """The training diverged."""


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
    learner: Learner,
    tokenizer: Any,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    after_epoch: AfterEpoch | None = None,
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
    runner = TorchRunner(model, tokenizer, device)
    held_out = _HeldOut(seed, learner, runner, after_epoch)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=_training_arguments(folder, recipe, steps, seed, device),
            data_collator=learner.collator(tokenizer),
            train_dataset=_Examples(learner.training),
            optimizers=(optimizer, schedule),
            callbacks=[progress, held_out],
        )
        trainer.remove_callback(PrinterCallback)  # prints dictionaries
        trainer.train()
    return Trained(seed, model, held_out.epochs, time.monotonic() - started)


def _scores_of(learner: Learner, outputs: Outputs) -> Scores:
    """The scores, or none with a warning: what fails here never costs the model."""
    try:
        return learner.scores(outputs)
    except Exception as error:
        reason = str(error) or type(error).__name__
        warn(f"the held-out scores cannot be computed ({reason}); training goes on without them")
        return {}


def _steps(examples: int, recipe: Recipe) -> int:
    return max(1, round(-(-examples // recipe.batch) * recipe.epochs))


def _training_arguments(
    folder: str, recipe: Recipe, steps: int, seed: int, device: torch.device
) -> TrainingArguments:
    """Of a trainer on one device that saves nothing and reports to nobody but us."""
    # accelerate imports DeepSpeed, which warns where it has to guess
    os.environ["DS_ACCELERATOR"] = device.type
    arguments = TrainingArguments(
        output_dir=folder,
        use_cpu=device.type == "cpu",
        max_steps=steps,
        per_device_train_batch_size=recipe.batch,
        max_grad_norm=1.0,
        seed=seed,
        bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
        eval_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=max(1, steps // _LINES),
        logging_nan_inf_filter=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several would make the batch larger in silence
    return arguments


class _Progress(TrainerCallback):
    """A line per logging interval."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Print the mean loss since the last line;
        the final summary, which has none, is left out.
        """
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise NotFiniteLossError(
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


class _HeldOut(TrainerCallback):
    """After each epoch, the scores of the held-out examples: as `predict` would give them."""

    def __init__(
        self, seed: int, learner: Learner, runner: Runner, after_epoch: AfterEpoch | None
    ) -> None:
        self._seed = seed
        self._learner = learner
        self._runner = runner
        self._after_epoch = after_epoch
        self.epochs: list[Scores] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Keep and print the scores."""
        if not self._learner.held_out:
            return
        scores = _scores_of(self._learner, self._runner(self._learner.held_out))
        self.epochs.append(scores)
        text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        say(f"seed {self._seed}  after epoch {state.epoch:.2f}  held out  {text}")
        if self._after_epoch and self._after_epoch(self._seed, state.epoch, scores):
            control.should_training_stop = True
