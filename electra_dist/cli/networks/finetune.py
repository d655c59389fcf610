"""`electra-dist finetune`: an exported discriminator learns a task from labelled examples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json
from electra_dist.finetune.cleaning import STEPS
from electra_dist.finetune.registry import TASKS

if TYPE_CHECKING:
    from electra_dist.finetune.run import FinetuneReport

_RECIPE = {
    "epochs": (float, "times over the training examples (default: 3; question answering 2)"),
    "lr": (float, "learning rate of the head (default: 1e-4; 5e-5 from hidden size 1,024)"),
    "layer_decay": (
        float,
        "each layer below learns by this factor slower (default: 0.8; 0.9 from 1,024)",
    ),
    "batch": (int, "examples a step (default: 32)"),
    "warmup": (float, "fraction of the steps in which the learning rate rises (default: 0.1)"),
    "max_length": (
        int,
        "tokens of an example, the rest is cut off (default: 128; question answering 512, windows)",
    ),
    "stride": (
        int,
        "question answering: tokens that neighbouring windows share (default: a quarter)",
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
        electra-dist finetune exported --train train.tsv --dev dev.tsv --seeds 5 --out five
        """,
    )
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="folder written by `electra-dist export`"
    )
    _add_task(parser)
    for name, (kind, text) in _RECIPE.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), dest=name, type=kind, metavar="N", help=text
        )
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
        "--device", choices=("cpu", "cuda"), help="default: the GPU where there is one"
    )
    add_json(parser)


def _add_task(parser: argparse.ArgumentParser) -> None:
    """The files, and what is in them."""
    parser.add_argument(
        "--train",
        required=True,
        type=Path,
        metavar="FILE",
        help=".tsv, .csv or .jsonl; SQuAD .json or .jsonl",
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
    parser.add_argument("--text", metavar="COLUMN", help="default: that of the task, text")
    parser.add_argument("--pair", metavar="COLUMN", help="second text, where an example is a pair")
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


def _finetune(arguments: argparse.Namespace) -> int:
    from electra_dist.errors import UserError
    from electra_dist.finetune.run import Settings, finetune

    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: expected 1 or more")
    settings = Settings(
        model=arguments.model,
        train=arguments.train,
        dev=arguments.dev,
        out=arguments.out,
        task=arguments.task,
        columns={"text": arguments.text, "pair": arguments.pair, "label": arguments.label},
        recipe={
            name: getattr(arguments, name)
            for name in _RECIPE
            if getattr(arguments, name) is not None
        },
        seeds=tuple(range(arguments.seed, arguments.seed + arguments.seeds)),
        device=arguments.device,
        drop_unlabelled=arguments.drop_unlabelled,
        keep_head=arguments.keep_head,
        clean=arguments.clean,
    )
    report = finetune(settings)
    if arguments.json:
        print_json(report.to_dict())
    else:
        _print(report)
    return 0


def _print(report: FinetuneReport) -> None:
    if report.median:
        from rich.table import Table

        table = Table(title="held out, after the last epoch")
        for number, name in enumerate(
            ["", *(f"seed {seed}" for seed in report.seeds), "median", "no model"]
        ):
            table.add_column(name, justify="left" if number == 0 else "right")
        for row in report.rows():
            table.add_row(*row)
        console().print(table)
    print(
        f"{report.out}: {report.task}, seed {report.kept}; use it with electra-dist predict"
        f" {report.out} --input FILE"
    )
