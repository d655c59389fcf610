"""One seed: model, optimizer and `transformers.Trainer` around the examples of a task.

Comes in: a learner, a recipe, and the folder that a killed seed goes on from. Goes out: the weights
that are kept, and the held-out scores of every epoch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, get_scheduler, set_seed
from transformers.trainer_callback import PrinterCallback

from electra_dist.console import live_line, say, warn
from electra_dist.finetune.model_folder import WEIGHTS
from electra_dist.finetune.recipe import SCHEDULES, Recipe, micro_batch, parameter_groups, prepare
from electra_dist.finetune.runners.runner import Features, TorchRunner
from electra_dist.finetune.seeds.callbacks import AfterEpoch, Checkpoints, HeldOut, Progress, Row
from electra_dist.finetune.seeds.mirror import Mirror
from electra_dist.finetune.seeds.ranks import DealtRunner, Ranks
from electra_dist.finetune.seeds.weights import save_weights
from electra_dist.finetune.seeds.work import History, SeedFolder
from electra_dist.finetune.training import Learner
from electra_dist.tracking.sinks import MetricsFile

#: Progress lines of a seed, about.
_LINES = 20


@dataclass(frozen=True)
class Training:
    """What all seeds have in common.

    head_seed    draws the head of every seed; None for the seed's own
    after_epoch  asked after each evaluation whether the seed ends
    mirror       gets every row of metrics too; None where nobody wants them
    """

    learner: Learner
    tokenizer: Any
    recipe: Recipe
    device: torch.device
    ranks: Ranks
    head_seed: int | None = None
    after_epoch: AfterEpoch | None = None
    mirror: Mirror | None = None

    def train(self, seed: int, folder: SeedFolder) -> History:
        """Train a new head and the encoder under it, or go on where `folder` says so.

        The same on the same machine for the same seed, killed and resumed or not.
        """
        finished = folder.finished()
        if finished is not None:
            say(f"seed {seed}  is finished; it is not repeated")
            return finished
        history = History()
        checkpoint: str | None = None
        step = 0
        if last := folder.last():
            path, history = last
            checkpoint = str(path)
            step = int(path.name.rpartition("-")[2])
            say(f"seed {seed}  goes on after step {step:,}")
        if self.ranks.is_main:
            with _rows(seed, folder, step, self.mirror) as write:
                self._run(seed, folder, history, checkpoint, write)
        else:
            self._run(seed, folder, history, checkpoint, _nothing)
        self.ranks.wait()
        return history

    def _run(
        self,
        seed: int,
        folder: SeedFolder,
        history: History,
        checkpoint: str | None,
        write: Callable[[Row], None],
    ) -> None:
        learner = self.learner
        recipe = self.recipe
        set_seed(seed if self.head_seed is None else self.head_seed)
        model = learner.new_model()
        layers = model.config.num_hidden_layers
        prepare(model, layers, recipe)
        groups = parameter_groups(model.named_parameters(), layers, recipe)
        steps = _steps(len(learner.training), recipe)
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, eps=1e-6, fused=True)
        schedule = get_scheduler(
            SCHEDULES[recipe.schedule], optimizer, round(recipe.warmup * steps), steps
        )
        checkpoints = Checkpoints(history, folder, self.ranks)
        arguments = _arguments(folder, recipe, steps, seed, self.device, self.ranks)
        runner = DealtRunner(TorchRunner(model, self.tokenizer, arguments.device), self.ranks)
        with live_line() as line:
            trainer = Trainer(
                model=model,
                args=arguments,
                data_collator=learner.collator(self.tokenizer),
                train_dataset=_Examples(learner.training),
                optimizers=(optimizer, schedule),
                compute_loss_func=learner.loss(),
                callbacks=[
                    Progress(seed, recipe.batch, write, line),
                    HeldOut(
                        seed,
                        learner,
                        recipe,
                        runner,
                        history,
                        folder,
                        self.ranks,
                        write,
                        self.after_epoch,
                    ),
                    checkpoints,
                ],
            )
            trainer.remove_callback(PrinterCallback)  # prints dictionaries
            # A model of ELECTRA takes the number of examples of a step and does not divide by it.
            trainer.model_accepts_loss_kwargs = False
            if history.ended and checkpoint is not None:
                model.load_state_dict(load_file(Path(checkpoint) / WEIGHTS))
            else:
                trainer.train(resume_from_checkpoint=checkpoint)
        history.seconds = checkpoints.seconds()
        if self.ranks.is_main:
            _finish(model, recipe, history, folder)


def _finish(model: Any, recipe: Recipe, history: History, folder: SeedFolder) -> None:
    if recipe.keep == "best" and history.best is not None:
        if folder.best.exists():  # else a kill came right after this step
            folder.best.replace(folder.kept)
    else:
        save_weights(model, folder.kept)
    folder.finish(history)


class _Examples(Dataset[dict[str, Any]]):
    def __init__(self, features: Features) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._features[index])


def _steps(examples: int, recipe: Recipe) -> int:
    return max(1, round(-(-examples // recipe.batch) * recipe.epochs))


def _arguments(
    folder: SeedFolder,
    recipe: Recipe,
    steps: int,
    seed: int,
    device: torch.device,
    ranks: Ranks,
) -> TrainingArguments:
    """Of a trainer that reports to nobody but us."""
    # accelerate imports DeepSpeed, which warns where it has to guess
    os.environ["DS_ACCELERATOR"] = device.type
    arguments = TrainingArguments(
        output_dir=str(folder.path),
        use_cpu=device.type == "cpu",
        max_steps=steps,
        per_device_train_batch_size=micro_batch(recipe, ranks.world_size),
        gradient_accumulation_steps=recipe.accumulate,
        max_grad_norm=recipe.max_norm,
        seed=seed,
        bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
        eval_strategy="no",
        save_strategy="epoch",
        ddp_find_unused_parameters=False,
        report_to=[],
        disable_tqdm=True,
        logging_steps=max(1, steps // _LINES),
        logging_nan_inf_filter=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several would make the batch larger in silence
    return arguments


# --- rows of metrics ------------------------------------------------------------------------------


@contextlib.contextmanager
def _rows(
    seed: int, folder: SeedFolder, step: int, mirror: Mirror | None
) -> Iterator[Callable[[Row], None]]:
    """What writes the rows of a seed, into its folder; those after `step` are taken out."""
    file = MetricsFile(folder.metrics, warn)
    file.cut_back(step)
    if mirror is not None:
        mirror.begin(seed, folder.metrics)

    def write(row: Row) -> None:
        file.write(row)
        if mirror is not None:
            mirror.send(row)

    try:
        yield write
    finally:
        if mirror is not None:
            mirror.end()
        file.close()


def _nothing(row: Row) -> None:
    """Another rank than 0 writes no rows."""
