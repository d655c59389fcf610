"""One fine-tuning, from labelled files to a folder that `transformers` and `electra-dist predict`
load.

    OUT/
        model.safetensors  config.json   the fine-tuned model, fp32; the names of the classes are in
                           config.json
        tokenizer.json ...               as the encoder's
        README.md                        what was trained on what, and the scores
        electra_dist.json                task, columns, recipe, scores of every seed and epoch, the
                                         encoder's own marker
        metrics.jsonl  curves.png        loss, learning rate and held-out scores of every seed
        seed-1/ ...  soup/               with `ensemble`: the model of every seed, and the greedy
                                         soup of their weights

Several seeds are trained one after the other; the one with the best held-out score is kept, and the
median is what to report: a single seed on a small data set says little. A killed fine-tuning goes
on where it was when it is asked the same again (`seeds.work`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors.torch import load_file

from electra_dist.console import say
from electra_dist.errors import UserError
from electra_dist.files.staging import check_folder_can_be_made, staged
from electra_dist.files.tokenizers import TOKENIZER_FILE
from electra_dist.finetune.cleaning import check_steps
from electra_dist.finetune.labelled import Files, Unlabelled
from electra_dist.finetune.model_folder import WEIGHTS, ModelFolder
from electra_dist.finetune.own_files import CARD
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import (
    Recipe,
    check_held_out,
    default_recipe,
    micro_batch,
    with_given,
)
from electra_dist.finetune.registry import TASKS, check_options
from electra_dist.finetune.report import FinetuneReport
from electra_dist.finetune.seeds.callbacks import AfterEpoch, DivergedError, merit
from electra_dist.finetune.seeds.curves import draw, join_rows
from electra_dist.finetune.seeds.mirror import Mirror
from electra_dist.finetune.seeds.one import Training
from electra_dist.finetune.seeds.ranks import Ranks, meet
from electra_dist.finetune.seeds.together import Together
from electra_dist.finetune.seeds.weights import write_marker, write_model
from electra_dist.finetune.seeds.work import History, Work, fingerprint
from electra_dist.finetune.training import Learner
from electra_dist.parallel.hardware import device_of_command
from electra_dist.tracking.wandb import Mode, choose_mode


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    columns          names by what they hold (`text`, `pair`, `label`), in place of the task's
    recipe           numbers that take the place of the defaults
    drop_unlabelled  leave out examples without a label, instead of refusing the file
    keep_head        go on with the head of a model that was fine-tuned for the same task
    wandb            `online` or `offline`: W&B gets the rows of metrics.jsonl too
    ensemble         keep the model of every seed, and report what they are together
    restart          begin anew, where a killed fine-tuning could go on
    clean            what is done to each text first: names of `cleaning.STEPS`
    """

    model: Path
    train: Path
    out: Path
    dev: Path | None = None
    task: str = "classification"
    columns: dict[str, str | None] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (1,)
    device: str | None = None
    drop_unlabelled: bool = False
    keep_head: bool = False
    ensemble: bool = False
    restart: bool = False
    wandb: Mode = "disabled"
    clean: tuple[str, ...] = ()

    @property
    def files(self) -> Files:
        """The labelled files."""
        unlabelled: Unlabelled = "refuse"
        if self.drop_unlabelled:
            unlabelled = "drop"
        given = {role: name for role, name in self.columns.items() if name}
        columns = replace(TASKS[self.task].columns, **given)
        return Files(self.train, self.dev, columns, unlabelled, self.clean)


def finetune(settings: Settings, after_epoch: AfterEpoch | None = None) -> FinetuneReport:
    """Train, keep the best seed, write `settings.out`.

    `after_epoch` is called on rank 0 after each evaluation, with the seed, the epochs so far and
    the held-out scores; True ends that seed. Raises `UserError`, and leaves nothing behind then but
    what the same command can go on from.
    """
    _check(settings)
    device = device_of_command(settings.device)
    ranks = meet(device)
    with ranks.quiet():
        return _finetune(settings, device, ranks, after_epoch)


class ChosenScore(NamedTuple):
    """The held-out score that epochs, seeds and trials are chosen by."""

    name: str
    lower_is_better: bool


def chosen_score(settings: Settings) -> ChosenScore:
    """That of a fine-tuning, which is checked with its files; raises `UserError`."""
    source = _encoder(settings)
    recipe = _recipe(settings, source)
    learner = TASKS[settings.task].new_learner(settings.files, source, source.tokenizer(), recipe)
    _check_metric(settings.task, learner, recipe)
    name = recipe.metric or learner.main_score
    return ChosenScore(name, name in learner.lower_is_better)


def _finetune(
    settings: Settings, device: torch.device, ranks: Ranks, after_epoch: AfterEpoch | None
) -> FinetuneReport:
    source = _encoder(settings)
    recipe = _recipe(settings, source)
    micro_batch(recipe, ranks.world_size)
    tokenizer = source.tokenizer()
    learner = TASKS[settings.task].new_learner(settings.files, source, tokenizer, recipe)
    _check_metric(settings.task, learner, recipe)
    work = Work(settings.out)
    with _working(work, settings, _asked(settings, source, recipe, device, ranks), ranks):
        say(_opening(settings, learner, recipe, device, ranks))
        training = Training(
            learner=learner,
            tokenizer=tokenizer,
            recipe=recipe,
            device=device,
            ranks=ranks,
            head_seed=settings.seeds[0] if settings.ensemble else None,
            after_epoch=after_epoch,
            mirror=_mirror(settings, recipe, work),
        )
        histories = {seed: training.train(seed, work.seed(seed)) for seed in settings.seeds}
        report = _report(settings, learner, recipe, histories)
        together = None
        if settings.ensemble:
            together = Together(training, work, source, report)
            report = together.scored()
        if ranks.is_main:
            model = learner.new_model()
            model.load_state_dict(load_file(work.seed(report.kept).kept))
            _write(model, work, source, learner, report, histories, together)
        ranks.wait()
    if ranks.is_main:
        work.remove()
    return report


# --- what is asked --------------------------------------------------------------------------------


def _check(settings: Settings) -> None:
    if settings.task not in TASKS:
        raise UserError(f"`task` {settings.task}: expected one of {', '.join(TASKS)}")
    check_steps(settings.clean, "`clean`")
    if settings.clean and not TASKS[settings.task].cleans:
        raise UserError(
            f"`clean` {','.join(settings.clean)}: {settings.task} takes its texts as they are;"
            " leave it out"
        )
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise UserError(
            f"`out` {settings.out}: exists and is not empty; nothing was changed, give a new folder"
        )
    check_folder_can_be_made(settings.out)  # before the training, not after it
    if len(settings.seeds) > 1 and settings.dev is None:
        raise UserError(
            f"`seeds` {len(settings.seeds)}: choosing the best seed needs held-out examples; give"
            " `dev`"
        )
    if settings.ensemble and len(settings.seeds) < 2:
        raise UserError("`ensemble`: needs two `seeds` or more")


def _encoder(settings: Settings) -> ModelFolder:
    """What is fine-tuned; raises `UserError` where it cannot be."""
    source = ModelFolder.open(settings.model)
    if source.kind == "generator":
        raise UserError(
            f"{source.path}: holds the generator; fine-tune the discriminator (electra-dist export)"
        )
    if settings.keep_head and source.kind != settings.task:
        raise UserError(
            f"`keep_head`: {source.path} holds a model for {source.kind}, whose head is none for"
            f" {settings.task}; leave it out to start a new head"
        )
    return source


def _recipe(settings: Settings, source: ModelFolder) -> Recipe:
    config = source.config
    positions = int(config["max_position_embeddings"])
    task = TASKS[settings.task]
    longest = settings.recipe.get("max_length") or min(positions, task.max_length)
    recipe = default_recipe(int(config["hidden_size"]), task.epochs, longest)
    check_options(settings.task, settings.recipe)
    recipe = with_given(recipe, settings.recipe, positions, int(config["num_hidden_layers"]))
    check_held_out(recipe, settings.dev is not None)
    return replace(recipe, keep_head=settings.keep_head)


def _check_metric(task: str, learner: Learner, recipe: Recipe) -> None:
    """Raise `UserError` where the recipe goes by a score that the task does not have."""
    names = learner.score_names()
    if recipe.metric is not None and recipe.metric not in names:
        raise UserError(
            f"`metric` {recipe.metric}: is no score of {task}; expected one of {', '.join(names)}"
        )


def _asked(
    settings: Settings, source: ModelFolder, recipe: Recipe, device: torch.device, ranks: Ranks
) -> dict[str, Any]:
    """All that the trained weights depend on; files by their content."""
    files = {
        "model": source.path / WEIGHTS,
        "tokenizer": source.path / TOKENIZER_FILE,
        "train": settings.train,
        "dev": settings.dev,
    }
    return {
        **{name: path and fingerprint(path) for name, path in files.items()},
        "task": settings.task,
        "columns": {role: name for role, name in settings.columns.items() if name},
        "drop_unlabelled": settings.drop_unlabelled,
        "clean": list(settings.clean),
        "seeds": list(settings.seeds),
        "ensemble": settings.ensemble,
        **asdict(recipe),
        "device": device.type,
        "ranks": ranks.world_size,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


@contextlib.contextmanager
def _working(work: Work, settings: Settings, asked: dict[str, Any], ranks: Ranks) -> Iterator[None]:
    """The hidden folder, held by rank 0; where nothing can go on from it, it is removed."""
    if not ranks.is_main:
        ranks.wait()
        yield
        return
    with work.held():
        if work.begin(asked, settings.restart):
            say(f"{settings.out}: an unfinished fine-tuning goes on")
        ranks.wait()
        try:
            yield
        except BaseException as error:
            if isinstance(error, DivergedError) or not work.leads_on():
                work.remove()
            raise


def _opening(
    settings: Settings, learner: Learner, recipe: Recipe, device: torch.device, ranks: Ranks
) -> str:
    sizes = ", ".join(f"{count:,} {name}" for name, count in learner.examples.items())
    where = device.type
    if ranks.world_size > 1:
        where = f"{ranks.world_size} ranks ({device.type})"
    return (
        f"{settings.task} on {where}: {sizes}; {recipe.epochs:g} epochs of batches of"
        f" {recipe.batch}, lr {recipe.lr:g}, layer decay {recipe.layer_decay:g}, up to"
        f" {recipe.max_length} tokens"
    )


def _mirror(settings: Settings, recipe: Recipe, work: Work) -> Mirror | None:
    """W&B, where the user wants it and the environment is not more private."""
    if settings.wandb == "disabled":
        return None
    choice = choose_mode(settings.wandb, os.environ)
    if choice.mode != settings.wandb:
        say(f"W&B is {choice.mode}, as the environment says")
    told = {"task": settings.task, **asdict(recipe)}
    return Mirror(choice.mode, settings.out.resolve().name, told, work.path)


# --- what came of it ------------------------------------------------------------------------------


def _report(
    settings: Settings, learner: Learner, recipe: Recipe, histories: dict[int, History]
) -> FinetuneReport:
    kept = {seed: history.kept(recipe.keep) for seed, history in histories.items()}
    seeds: dict[int, Scores] = {seed: {} for seed in histories}
    epochs = {}
    for seed, entry in kept.items():
        if entry is not None:
            seeds[seed] = histories[seed].scores[entry]
            epochs[seed] = histories[seed].epochs[entry]
    return FinetuneReport(
        out=settings.out,
        task=settings.task,
        model=str(settings.model),
        examples=learner.examples,
        recipe=recipe,
        main_score=learner.main_score,
        seeds=seeds,
        kept=max(seeds, key=lambda seed: merit(learner, recipe, seeds[seed])),
        seconds=sum(history.seconds for history in histories.values()),
        simple=learner.simple,
        epochs=epochs,
        clean=settings.clean,
    )


def _write(
    model: Any,
    work: Work,
    source: ModelFolder,
    learner: Learner,
    report: FinetuneReport,
    histories: dict[int, History],
    together: Together | None,
) -> None:
    marker = {
        "recipe": asdict(report.recipe),
        "examples": report.examples,
        "scores": {
            "kept_seed": report.kept,
            "kept_epochs": report.epochs,
            "median": report.median,
            "epochs": {seed: history.scores for seed, history in histories.items()},
            "simple": report.simple,
            "together": report.together,
        },
        "encoder": source.marker or str(source.path.name),
    }
    own = learner.marker(report.seeds[report.kept])
    encoder = source.marker.get("run") or source.path.name
    with staged(report.out) as folder:
        write_model(folder, model, source)
        learner.write_more(folder)
        (folder / CARD).write_text(report.card(encoder), encoding="utf-8")
        metrics = folder / "metrics.jsonl"
        join_rows({seed: work.seed(seed).metrics for seed in histories}, metrics)
        draw(metrics, report.recipe.metric or report.main_score, folder / "curves.png")
        write_marker(folder, own | marker)
        if work.wandb.is_dir():
            shutil.move(work.wandb, folder)
        if together is not None:
            together.write(folder, marker, report)
