"""What happens while a seed trains: progress, held-out scores, early stopping, checkpoints.

Comes in: the events of `transformers.Trainer`. Goes out: lines for the user, rows of metrics, and
the history of the seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from electra_dist.console import LiveLine, human_seconds, say, warn
from electra_dist.errors import UserError
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.runners.runner import Outputs, Runner
from electra_dist.finetune.seeds.ranks import Ranks
from electra_dist.finetune.seeds.weights import save_weights
from electra_dist.finetune.seeds.work import History, SeedFolder
from electra_dist.finetune.training import Learner

Row = dict[str, Any]
#: Called with the seed, the part of the training in epochs, and the held-out scores there; True
#: ends the seed.
AfterEpoch = Callable[[int, float, Scores], bool]
#: Between two checkpoints of one process, at most, beside those after each epoch.
_SAVE_SECONDS = 300.0


class DivergedError(UserError):
    """The loss of a seed is not finite any more; the same again would end the same way."""


class Progress(TrainerCallback):
    """A line and a row per logging interval, and a line that lives."""

    def __init__(
        self, seed: int, batch: int, write: Callable[[Row], None], line: LiveLine | None
    ) -> None:
        """`batch`: examples per step."""
        self._seed = seed
        self._batch = batch
        self._write = write
        self._line = line
        self._first = 0
        self._started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Count from here; a resumed seed has steps behind it."""
        self._first = state.global_step
        self._started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Draw the line that lives."""
        if self._line is not None:
            self._line.show(f"{self._place(state)}  {self._pace(state)}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Print the mean loss since the last line;
        the final summary, which has none, is left out.
        """
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise DivergedError(
                f"seed {self._seed}: the loss is {loss} at step {state.global_step}; take a smaller"
                " `lr`"
            )
        lr = float(logs["learning_rate"])
        say(f"{self._place(state)}  loss {loss:.4f}  lr {lr:.1e}  {self._pace(state)}")
        self._write(
            {
                "step": state.global_step,
                "seed": self._seed,
                "epoch": state.epoch,
                "loss": loss,
                "lr": lr,
                "examples_per_second": self._rate(state) * self._batch,
            }
        )

    def _place(self, state: Any) -> str:
        width = len(str(state.max_steps))
        return (
            f"seed {self._seed}  step {state.global_step:>{width}}/{state.max_steps}  epoch"
            f" {state.epoch:.2f}"
        )

    def _pace(self, state: Any) -> str:
        rate = self._rate(state)
        left = (state.max_steps - state.global_step) / max(rate, 1e-9)
        return f"{rate * self._batch:.0f} examples/s  {human_seconds(left)} left"

    def _rate(self, state: Any) -> float:
        """Steps per second."""
        steps: int = state.global_step - self._first
        return steps / max(time.monotonic() - self._started, 1e-9)


class HeldOut(TrainerCallback):
    """After each epoch, the scores of the held-out examples: as `predict` would give them.

    Notes which epoch is the best, keeps its weights where the recipe says so, and ends the seed
    when its patience is over or `after_epoch` says so.
    """

    def __init__(
        self,
        seed: int,
        learner: Learner,
        recipe: Recipe,
        runner: Runner,
        history: History,
        folder: SeedFolder,
        ranks: Ranks,
        write: Callable[[Row], None],
        after_epoch: AfterEpoch | None,
    ) -> None:
        """`history` is that of a resumed seed, or a new one."""
        self._seed = seed
        self._learner = learner
        self._recipe = recipe
        self._runner = runner
        self._history = history
        self._folder = folder
        self._ranks = ranks
        self._write = write
        self._after_epoch = after_epoch

    def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Keep and print the scores."""
        if not self._learner.held_out:
            return
        scores = scores_of(self._learner, self._runner(self._learner.held_out))
        self._note(scores, state, others["model"])
        if self._ends(scores, state.epoch):
            self._history.ended = True
            control.should_training_stop = True

    def _note(self, scores: Scores, state: Any, model: Any) -> None:
        history = self._history
        better = self._merit(scores) > self._best_merit()
        history.scores.append(scores)
        history.epochs.append(state.epoch)
        if better:
            history.best = len(history.scores) - 1
            if self._recipe.keep == "best" and self._ranks.is_main:
                save_weights(model, self._folder.best)
        text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        say(f"seed {self._seed}  after epoch {state.epoch:.2f}  held out  {text}")
        row = {"step": state.global_step, "seed": self._seed, "epoch": state.epoch}
        self._write(row | {f"held_out/{name}": value for name, value in scores.items()})

    def _merit(self, scores: Scores) -> float:
        return merit(self._learner, self._recipe, scores)

    def _best_merit(self) -> float:
        if self._history.best is None:
            return -math.inf
        return self._merit(self._history.scores[self._history.best])

    def _ends(self, scores: Scores, epoch: float) -> bool:
        """Whether the seed has trained enough."""
        patience = self._recipe.patience
        since = self._history.since_best()
        if patience is not None and since >= patience:
            say(
                f"seed {self._seed}  ends after epoch {epoch:.2f}: no better"
                f" {self._recipe.metric or self._learner.main_score} in {since} evaluations"
            )
            return True
        if self._after_epoch is None:
            return False
        wanted = False
        if self._ranks.is_main:
            wanted = self._after_epoch(self._seed, epoch, scores)
        return self._ranks.agreed(wanted)


class Checkpoints(TrainerCallback):
    """A checkpoint is valid when all ranks have written their part of it."""

    def __init__(self, history: History, folder: SeedFolder, ranks: Ranks) -> None:
        self._history = history
        self._folder = folder
        self._ranks = ranks
        self._before = history.seconds
        self._started = time.monotonic()
        self._saved = self._started

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """In a long epoch, one every few minutes; several ranks would not agree on the time."""
        if self._ranks.world_size == 1 and time.monotonic() - self._saved > _SAVE_SECONDS:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Make it valid."""
        self._ranks.wait()
        self._saved = time.monotonic()
        self._history.seconds = self.seconds()
        if self._ranks.is_main:
            self._folder.mark(state.global_step, self._history)

    def seconds(self) -> float:
        """Of training, those before a kill included."""
        return self._before + time.monotonic() - self._started


def scores_of(learner: Learner, outputs: Outputs) -> Scores:
    """The scores, or none with a warning: what fails here never costs the model."""
    try:
        return learner.scores(outputs)
    except Exception as error:
        reason = str(error) or type(error).__name__
        warn(f"the held-out scores cannot be computed ({reason}); training goes on without them")
        return {}


def merit(learner: Learner, recipe: Recipe, scores: Scores) -> float:
    """How good the scores are by the metric that chooses; the lowest where it is not there."""
    name = recipe.metric or learner.main_score
    value = scores.get(name, -math.inf)
    if math.isnan(value):
        return -math.inf
    if name in learner.lower_is_better and name in scores:
        return -value
    return value
