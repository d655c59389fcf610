"""One fine-tuning, from labelled files to a folder that `transformers` and `electra-dist predict`
load.

    OUT/
        model.safetensors  config.json   the fine-tuned model, fp32; the names of the classes are in
                           config.json
        tokenizer.json ...               as the encoder's
        README.md                        what was trained on what, and the scores
        electra_dist.json                task, columns, recipe, scores of every seed and epoch, the
                                         encoder's own marker

Several seeds are trained one after the other; the one with the best held-out score is kept, and the
median is what to report: a single seed on a small data set says little.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from electra_dist.console import human_seconds, say
from electra_dist.errors import UserError
from electra_dist.files.staging import check_folder_can_be_made, staged
from electra_dist.files.writing import open_to_readers, write_json
from electra_dist.finetune.cleaning import check_steps
from electra_dist.finetune.labelled import Files, Unlabelled
from electra_dist.finetune.model_folder import MARKER, WEIGHTS, ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe, default_recipe
from electra_dist.finetune.registry import TASKS
from electra_dist.finetune.training import Learner, Trained, train_seed
from electra_dist.parallel.hardware import device_of_command


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    columns          names by what they hold (`text`, `pair`, `label`), in place of the task's
    recipe           numbers that take the place of the defaults
    drop_unlabelled  leave out examples without a label, instead of refusing the file
    keep_head        go on with the head of a model that was fine-tuned for the same task
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


@dataclass(frozen=True)
class FinetuneReport:
    """What came of it. `seeds`: scores after the last epoch;
    `kept`: the seed whose model is in `out`.
    """

    out: Path
    task: str
    model: str
    examples: dict[str, int]
    recipe: Recipe
    main_score: str
    seeds: dict[int, Scores]
    kept: int
    seconds: float
    simple: Scores  # what needs no model: the most frequent class, the mean
    clean: tuple[str, ...] = ()

    @property
    def median(self) -> Scores:
        """Median of each score over the seeds."""
        every = list(self.seeds.values())
        names = [name for name in every[0] if all(name in scores for scores in every)]
        return {name: statistics.median(scores[name] for scores in every) for name in names}

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out), "median": self.median}

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of a table: score, one column a seed, the median and what needs no model."""
        rows = []
        for name, middle in self.median.items():
            values = [f"{scores[name]:.4f}" for scores in self.seeds.values()]
            if name in self.simple:
                simple = f"{self.simple[name]:.4f}"
            else:
                simple = ""
            rows.append((name, *values, f"{middle:.4f}", simple))
        return rows


def finetune(settings: Settings) -> FinetuneReport:
    """Train, keep the best seed, write `settings.out`;
    raises `UserError`, and leaves nothing behind then.
    """
    _check(settings)
    device = device_of_command(settings.device)
    source = ModelFolder.open(settings.model)
    if source.kind == "generator":
        raise UserError(
            f"{source.path}: holds the generator; fine-tune the discriminator (electra-dist export)"
        )
    hidden = int(source.config["hidden_size"])
    positions = int(source.config["max_position_embeddings"])
    task = TASKS[settings.task]
    longest = settings.recipe.get("max_length") or min(positions, task.max_length)
    recipe = default_recipe(hidden, task.epochs, longest)
    recipe = _checked(recipe, settings.recipe, positions)
    recipe = replace(recipe, keep_head=settings.keep_head)
    if settings.keep_head and source.kind != settings.task:
        raise UserError(
            f"`keep_head`: {source.path} holds a model for {source.kind}, whose head is none for"
            f" {settings.task}; leave it out to start a new head"
        )
    tokenizer = source.tokenizer()
    learner = task.new_learner(settings.files, source, tokenizer, recipe)
    say(_opening(settings, learner, recipe, device))
    best, trained = _train(learner, tokenizer, recipe, settings.seeds, device)
    report = FinetuneReport(
        out=settings.out,
        task=settings.task,
        model=str(settings.model),
        examples=learner.examples,
        recipe=recipe,
        main_score=learner.main_score,
        seeds={one.seed: one.epochs[-1] if one.epochs else {} for one in trained},
        kept=best.seed,
        seconds=sum(one.seconds for one in trained),
        simple=learner.simple,
        clean=settings.clean,
    )
    history = {one.seed: one.epochs for one in trained}
    _write(settings.out, best.model, source, learner, report, history)
    return report


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


def _checked(recipe: Recipe, given: dict[str, Any], positions: int) -> Recipe:
    """`recipe` with the numbers given; raises `UserError` naming the option."""
    above: dict[str, tuple[float, float]] = {
        "epochs": (0, 1000),
        "lr": (0, 1),
        "layer_decay": (0, 1),
    }
    within: dict[str, tuple[float, float]] = {
        "batch": (1, 100_000),
        "warmup": (0, 1),
        "max_length": (8, positions),
        "stride": (0, recipe.max_length - 1),
    }
    for name, value in given.items():
        low, high = (above | within)[name]
        if not low <= value <= high or (name in above and value == low):
            if name in above:
                expected = f"above {low:g} and up to {high:g}"
            else:
                expected = f"from {low:g} to {high:g}"
            if name == "max_length":
                reason = " (the encoder's positions)"
            else:
                reason = ""
            raise UserError(f"`{name}` {value:g}: expected {expected}{reason}")
    return replace(recipe, **given)


def _opening(settings: Settings, learner: Learner, recipe: Recipe, device: torch.device) -> str:
    sizes = ", ".join(f"{count:,} {name}" for name, count in learner.examples.items())
    return (
        f"{settings.task} on {device.type}: {sizes}; {recipe.epochs:g} epochs of batches of"
        f" {recipe.batch}, lr {recipe.lr:g}, layer decay {recipe.layer_decay:g}, up to"
        f" {recipe.max_length} tokens"
    )


def _train(
    learner: Learner, tokenizer: Any, recipe: Recipe, seeds: Sequence[int], device: torch.device
) -> tuple[Trained, list[Trained]]:
    """The best seed and all of them, one after the other;
    only the best model so far stays in memory.
    """
    done: list[Trained] = []
    best: Trained | None = None
    for seed in seeds:
        one = train_seed(learner, tokenizer, recipe, seed, device)
        if best is None or _last(one, learner.main_score) > _last(best, learner.main_score):
            best = one
        done.append(replace(one, model=None))
    assert best is not None
    return best, done


def _last(trained: Trained, score: str) -> float:
    """The held-out score after the last epoch; the lowest where there is none."""
    if not trained.epochs:
        return -math.inf
    return trained.epochs[-1].get(score, -math.inf)


def _write(
    out: Path,
    model: Any,
    source: ModelFolder,
    learner: Learner,
    report: FinetuneReport,
    history: dict[int, list[Scores]],
) -> None:
    with staged(out) as folder:
        model.to("cpu").float().save_pretrained(folder)
        open_to_readers(folder / WEIGHTS)
        source.copy_tokenizer(folder)
        marker = learner.marker(report.seeds[report.kept]) | {
            "recipe": asdict(report.recipe),
            "examples": report.examples,
            "scores": {
                "kept_seed": report.kept,
                "median": report.median,
                "epochs": history,
                "simple": report.simple,
            },
            "encoder": source.marker or str(source.path.name),
        }
        write_json(folder / MARKER, marker)
        (folder / "README.md").write_text(_card(report, source), encoding="utf-8")


def _card(report: FinetuneReport, source: ModelFolder) -> str:
    """A short model card."""
    encoder = source.marker.get("run") or source.path.name
    pipeline = TASKS[report.task].pipeline
    lines = [
        "---",
        "library_name: transformers",
        *([f"pipeline_tag: {pipeline}"] if pipeline else []),
        "tags: [electra]",
        "---",
        "",
        f"# {report.task}, fine-tuned from {encoder}",
        "",
        f"Examples: {', '.join(f'{count:,} {name}' for name, count in report.examples.items())}."
        f" {report.recipe.epochs:g} epochs, batches of {report.recipe.batch}, learning rate"
        f" {report.recipe.lr:g}, layer decay {report.recipe.layer_decay:g},"
        f" {human_seconds(report.seconds)}.",
        "",
    ]
    if report.clean:
        lines += [
            f"Texts are cleaned first ({', '.join(report.clean)}): `electra-dist predict` does it,"
            " a pipeline of transformers does not.",
            "",
        ]
    if report.median:
        seeds = ", ".join(f"seed {seed}" for seed in report.seeds)
        lines += [f"Held out, after the last epoch ({seeds}; this is seed {report.kept}):", ""]
        names = [f"seed {seed}" for seed in report.seeds]
        lines += [
            "| | " + " | ".join([*names, "median", "no model"]) + " |",
            "|---|" + "---:|" * (len(names) + 2),
        ]
        lines += ["| " + " | ".join(row) + " |" for row in report.rows()]
    return "\n".join(lines) + "\n"
