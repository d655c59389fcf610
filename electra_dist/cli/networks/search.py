"""`electra-dist search`: the best numbers of a fine-tuning or a pre-training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.networks.finetune import add_options, settings_of
from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_group,
    add_json,
    console,
    print_json,
)

if TYPE_CHECKING:
    from optuna.study import Study

_SPACE = (
    "what is varied: name=LOW..HIGH, name=LOW..HIGH:log (all magnitudes alike) or name=A,B,C;"
    " whole numbers where both ends are"
)


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    group = add_group(subparsers, "search", "Search for the best numbers of a training")
    _add_finetune(group)
    _add_train(group)
    _add_show(group)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vary", required=True, nargs="+", metavar="name=VALUES", help=_SPACE)
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="trials of the study in all, whoever trained them (default: %(default)s)",
    )
    add_json(parser)


def _add_finetune(group: Subparsers) -> None:
    parser = add_command(
        group,
        "finetune",
        _finetune,
        "Search for the numbers of a fine-tuning, compared on held-out examples",
        """
        electra-dist search finetune base --train a.tsv --dev b.tsv --out s --vary lr=1e-5..1e-3:log
        electra-dist search finetune base --train a.tsv --dev b.tsv --out s --vary batch=16,32
        electra-dist search show studies/sst2

        The same command goes on with a study, and any number of processes may run it at once: in
        several terminals, or `sbatch --array=1-8 --wrap "electra-dist search finetune ..."`.
        A trial whose process died is repeated. OUT/best is the model of the best trial.
        """,
    )
    add_options(parser)
    _add_common(parser)


def _add_train(group: Subparsers) -> None:
    parser = add_command(
        group,
        "train",
        _train,
        "Search for keys of a pre-training, compared by validation.stop_metric",
        """
        electra-dist search train config.yaml train.steps=500 --out s --vary optim.lr=1e-4..3e-3:log

        Each trial is a run NAME-t0007, with the group of the study in W&B. Trials that are worse
        than the median of the earlier ones at the same step are stopped.
        """,
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="configuration file (YAML)")
    parser.add_argument(
        "overrides", metavar="key.sub=value", nargs="*", help="keys that every trial has"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="of the study")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="of each run (default: 1)"
    )
    _add_common(parser)


def _add_show(group: Subparsers) -> None:
    parser = add_command(
        group,
        "show",
        _show,
        "The trials of a study, the best one, and how much each number mattered",
        """
        electra-dist search show studies/sst2
        electra-dist search show studies/sst2 --json
        """,
    )
    parser.add_argument("out", metavar="STUDY", type=Path, help="folder of a search")
    add_json(parser)


def _finetune(arguments: argparse.Namespace) -> int:
    from electra_dist.search.finetuning import search_finetuning
    from electra_dist.search.space import parse_space

    _check_trials(arguments.trials)
    settings = settings_of(arguments)
    space = parse_space(arguments.vary)
    study = search_finetuning(settings, space, arguments.trials)
    _report(study, arguments.out, arguments.json)
    if not arguments.json:
        print(f"the model of the best trial: {arguments.out / 'best'}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from electra_dist.search.pretraining import Pretraining, search_pretraining
    from electra_dist.search.space import parse_space

    _check_trials(arguments.trials)
    training = Pretraining(arguments.config, tuple(arguments.overrides), arguments.processes)
    space = parse_space(arguments.vary)
    study = search_pretraining(training, arguments.out, space, arguments.trials)
    _report(study, arguments.out, arguments.json)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from electra_dist.search.study import existing_study

    _report(existing_study(arguments.out), arguments.out, arguments.json)
    return 0


def _check_trials(trials: int) -> None:
    from electra_dist.errors import UserError

    if trials < 1:
        raise UserError(f"--trials {trials}: expected 1 or more")


def _report(study: Study, out: Path, as_json: bool) -> None:
    from rich.table import Table

    from electra_dist.search.report import draw, report_of

    report = report_of(study, out)
    pictures = [str(path) for path in draw(report)]
    if as_json:
        print_json(report.to_dict() | {"pictures": pictures})
        return
    table = Table(title=f"{len(report.trials)} trials, {report.direction} {report.metric}")
    for name in report.header():
        table.add_column(name, justify="right")
    for row in report.rows():
        table.add_row(*row)
    console().print(table)
    if report.best is not None:
        best = " ".join(f"{name}={value}" for name, value in report.best.values.items())
        print(f"best: trial {report.best.number}, {best}")
    for name, share in report.importances.items():
        print(f"{name} explains {share:.0%} of the variance")
    for path in pictures:
        print(f"picture: {path}", file=sys.stderr)
