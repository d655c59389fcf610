"""`electra-dist finetune`: an exported discriminator learns a task from labelled examples."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json
from electra_dist.finetune.cleaning import STEPS
from electra_dist.finetune.registry import TASKS

if TYPE_CHECKING:
    from electra_dist.finetune.report import FinetuneReport
    from electra_dist.finetune.run import Settings


def _layers(text: str) -> int:
    """The number of frozen layers."""
    if text == "embeddings":
        return 0
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected `embeddings` or a number of layers")


_RECIPE: dict[str, tuple[Callable[[str], Any], str]] = {
    "epochs": (float, "times over the training examples (default: 3; question answering 2)"),
    "lr": (float, "learning rate of the head (default: 1e-4; 5e-5 from hidden size 1,024)"),
    "layer_decay": (
        float,
        "each layer below learns by this factor slower (default: 0.8; 0.9 from 1,024)",
    ),
    "batch": (int, "examples per step, of all ranks together (default: 32)"),
    "accumulate": (int, "micro-batches that a rank cuts its part of a step into (default: 1)"),
    "warmup": (float, "fraction of the steps in which the learning rate rises (default: 0.1)"),
    "max_length": (
        int,
        "tokens of an example, the rest is cut off, or of a window (default: 128; ranking 256;"
        " multiple choice and question answering 512)",
    ),
    "stride": (
        int,
        "tokens that neighbouring windows share, where a task has windows (default: a quarter)",
    ),
    "temperature": (float, "embeddings: divides the cosines in the loss (default: 0.05)"),
    "weight_decay": (float, "not of biases and LayerNorm (default: 0.01)"),
    "max_norm": (float, "gradients are cut to this norm (default: 1)"),
    "dropout": (float, "everywhere in the network (default: that of config.json)"),
    "freeze": (_layers, "`embeddings`, or the lowest N layers too: they learn nothing"),
    "label_smoothing": (float, "share of the target spread over all classes (default: 0)"),
    "patience": (
        int,
        "end a seed after N evaluations without a better score, and keep the best epoch",
    ),
}
#: Option -> its choices and what it says; the first choice is the default.
_WORDS = {
    "schedule": (
        ("linear", "cosine", "constant", "polynomial", "inverse-sqrt"),
        "how the learning rate falls after the warm-up (default: linear)",
    ),
    "class_weights": (
        ("none", "balanced"),
        "balanced: a class weighs inversely to how often it occurs (default: none)",
    ),
    "keep": (
        ("last", "best"),
        "the epoch whose weights are kept (default: last; best with --patience)",
    ),
}


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "finetune",
        _finetune,
        f"Teach an exported discriminator a task: {', '.join(TASKS)}",
        """
        electra-dist finetune exported --train train.tsv --dev dev.tsv --out finetuned/sst2
        electra-dist finetune exported --train pairs.csv --dev dev.csv --text a --pair b --out nli
        electra-dist finetune exported --task regression --train a.jsonl --dev b.jsonl --out sts
        electra-dist finetune exported --task multi-label --train a.csv --dev b.csv --out topics
        electra-dist finetune exported --task question-answering --train a.json --dev b.json --out q
        electra-dist finetune exported --task token-classification --train a.conll --out ner
        electra-dist finetune exported --task embeddings --train pairs.tsv --dev dev.tsv --out e
        electra-dist finetune exported --task multiple-choice --train a.jsonl --dev b.jsonl --out c
        electra-dist finetune exported --task ranking --train MINDsmall_train --out news
        electra-dist finetune exported --train train.tsv --dev dev.tsv --seeds 5 --out five
        electra-dist finetune exported --train train.tsv --dev dev.tsv --patience 2 --out early
        electra-dist finetune exported --train a.tsv --dev b.tsv --seeds 3 --ensemble --out three
        """,
    )
    add_options(parser)
    add_json(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """MODEL, the files, and how it is trained."""
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="folder written by `electra-dist export`"
    )
    _add_task(parser)
    _add_recipe(parser)
    _add_seeds(parser)
    parser.add_argument(
        "--restart",
        action="store_true",
        help="begin anew, where a killed fine-tuning with the same --out could go on",
    )
    parser.add_argument(
        "--wandb",
        choices=("online", "offline", "disabled"),
        default="disabled",
        help="W&B gets the curves too, one run per seed (default: %(default)s)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: the GPU where there is one"
    )


def _add_task(parser: argparse.ArgumentParser) -> None:
    """The files, and what is in them."""
    parser.add_argument(
        "--train",
        required=True,
        type=Path,
        metavar="FILE",
        help=".tsv, .csv or .jsonl; SQuAD .json or .jsonl; labels of words .conll, .conllu or"
        " .jsonl; ranking: .jsonl or a folder of MIND",
    )
    parser.add_argument(
        "--dev", type=Path, metavar="FILE", help="held-out examples: scores after each epoch"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new folder for the model"
    )
    parser.add_argument(
        "--task",
        choices=tuple(TASKS),
        default="classification",
        help="; ".join(f"{task.name}: {task.summary}" for task in TASKS.values())
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--text",
        metavar="COLUMN",
        help="default: that of the task, text or words; in .conll, a number",
    )
    parser.add_argument(
        "--pair",
        metavar="COLUMN",
        help="second text, where an example is a pair; the list"
        " of choices or candidates, or the columns of the choices, apart by commas",
    )
    parser.add_argument("--label", metavar="COLUMN", help="default: that of the task, label")
    parser.add_argument(
        "--drop-unlabelled",
        action="store_true",
        help="leave out examples whose label is missing (empty, null, nan), instead of refusing"
        " the file",
    )
    parser.add_argument(
        "--clean",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAME,...",
        help=f"do this to each text first, in `predict` too: {', '.join(STEPS)} (default: nothing)",
    )
    parser.add_argument(
        "--keep-head",
        action="store_true",
        help="go on with the head of a model that was fine-tuned for the same task and classes"
        " (default: a new head)",
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    """How it is trained."""
    for name, (kind, text) in _RECIPE.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), dest=name, type=kind, metavar="N", help=text
        )
    for name, (choices, text) in _WORDS.items():
        parser.add_argument("--" + name.replace("_", "-"), dest=name, choices=choices, help=text)
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="the held-out score that chooses epoch and seed (default: the task's main one)",
    )


def _add_seeds(parser: argparse.ArgumentParser) -> None:
    """How often, and what the seeds are together."""
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="the first seed (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="train N times, keep the best, report the median (default: 1)",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="with --seeds: keep the model of every seed, and report their ensemble and soups",
    )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What `add_options` read; raises `UserError`."""
    from electra_dist.errors import UserError
    from electra_dist.finetune.run import Settings

    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: expected 1 or more")
    return Settings(
        model=arguments.model,
        train=arguments.train,
        dev=arguments.dev,
        out=arguments.out,
        task=arguments.task,
        columns={"text": arguments.text, "pair": arguments.pair, "label": arguments.label},
        recipe={
            name: getattr(arguments, name)
            for name in (*_RECIPE, *_WORDS, "metric")
            if getattr(arguments, name) is not None
        },
        seeds=tuple(range(arguments.seed, arguments.seed + arguments.seeds)),
        device=arguments.device,
        drop_unlabelled=arguments.drop_unlabelled,
        keep_head=arguments.keep_head,
        ensemble=arguments.ensemble,
        restart=arguments.restart,
        wandb=arguments.wandb,
        clean=arguments.clean,
    )


def _finetune(arguments: argparse.Namespace) -> int:
    from electra_dist.finetune.run import finetune
    from electra_dist.finetune.seeds.ranks import part

    report = finetune(settings_of(arguments))
    if not part().is_main:
        return 0
    if arguments.json:
        print_json(report.to_dict())
    else:
        _print(report)
    return 0


def _print(report: FinetuneReport) -> None:
    if report.median:
        from rich.table import Table

        table = Table(title=report.title)
        for number, name in enumerate(["", *report.columns()]):
            table.add_column(name, justify="left" if number == 0 else "right")
        for row in report.rows():
            table.add_row(*row)
        console().print(table)
    print(
        f"{report.out}: {report.task}, seed {report.kept}; use it with electra-dist predict"
        f" {report.out} --input FILE"
    )
