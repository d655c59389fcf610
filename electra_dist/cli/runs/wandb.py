"""`electra-dist wandb`: `sync` brings W&B the rows that it lacks, `dashboard` makes a workspace."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.cli.parsers import Subparsers, add_command, add_group, add_json, print_json

if TYPE_CHECKING:
    from electra_dist.runs.directory import RunDir
    from electra_dist.tracking.wandb import Mode


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    group = add_group(subparsers, "wandb", "Bring runs to W&B, and make a workspace for them")
    _add_sync(group)
    _add_dashboard(group)


# --- sync -----------------------------------------------------------------------------------------


def _add_sync(group: Subparsers) -> None:
    parser = add_command(
        group,
        "sync",
        _sync,
        "Bring W&B the rows of metrics.jsonl that it has not: none is left out, none sent twice",
        """
        electra-dist wandb sync runs/base             to the server, with the login of `wandb login`
        electra-dist wandb sync runs/one runs/two     several runs, one after the other
        electra-dist wandb sync runs/sweep            all runs in a folder
        electra-dist wandb sync runs/base --offline   files for `wandb sync` on another machine
        electra-dist wandb sync runs/base --seconds 60 --json

        Also while the run trains offline, and after W&B was out of reach. Needs wandb, no torch.
        """,
    )
    parser.add_argument(
        "run_paths", metavar="RUN", type=Path, nargs="+", help="run directory, or a folder of them"
    )
    parser.add_argument(
        "--offline", action="store_true", help="write files in RUN/wandb instead of uploading"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=600.0,
        metavar="S",
        help="give a run up after that long (default: %(default)g)",
    )
    add_json(parser)


def _sync(arguments: argparse.Namespace) -> int:
    """Each run that can be; raises `UserError` where one cannot."""
    mode: Mode = "online"
    if arguments.offline:
        mode = "offline"
    _check_mode(mode, "--offline")
    runs = [run for path in arguments.run_paths for run in _runs_at(path)]
    if len(runs) == 1:
        told: Any = _sync_one(runs[0], mode, arguments)
    else:
        told = _sync_all(runs, mode, arguments)
    if arguments.json:
        print_json(told)
    return 0


def _sync_all(
    runs: list[RunDir], mode: Mode, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """One after the other; one that cannot be brought does not keep the others from it.

    Raises `UserError` at the end where there was one.
    """
    from electra_dist.errors import UserError

    told = []
    for run in runs:
        try:
            told.append(_sync_one(run, mode, arguments))
        except UserError as error:
            print(f"warning: {run.path}: {error}", file=sys.stderr)
    if len(told) < len(runs):
        raise UserError(
            f"{len(runs) - len(told)} of {len(runs)} runs could not be brought to W&B; see above,"
            " and run the same command again"
        )
    return told


def _check_mode(wanted: Mode, otherwise: str) -> None:
    """Raise `UserError` where the environment is more private than `wanted`;
    `otherwise` is what can be done without a server.
    """
    from electra_dist.errors import UserError
    from electra_dist.tracking.wandb import choose_mode

    choice = choose_mode(wanted, os.environ)
    if choice.mode == wanted:
        return
    advice = "unset it"
    if choice.mode == "offline":
        advice += f", or give {otherwise}"
    raise UserError(
        f"W&B is {choice.mode} by WANDB_MODE or WANDB_DISABLED of the environment: {advice}"
    )


def _runs_at(path: Path) -> Iterator[RunDir]:
    """The run at `path`, or those in the folder; raises `UserError` where there is none."""
    from electra_dist.runs.directory import RunDir

    if path.is_dir() and not RunDir(path).config.is_file():
        inside = [RunDir(entry) for entry in sorted(path.iterdir())]
        runs = [run for run in inside if run.config.is_file()]
        if runs:
            yield from runs
            return
    yield RunDir.existing(path)


def _sync_one(run: RunDir, mode: Mode, arguments: argparse.Namespace) -> dict[str, Any]:
    """Bring one run to W&B and print what came of it; raises `UserError`."""
    from electra_dist.tracking.wandb import mirror_once

    report = mirror_once(run, mode, arguments.seconds, os.environ)
    for sentence in report.warnings:
        print(f"warning: W&B: {sentence}", file=sys.stderr)
    if arguments.json:
        return {"run": str(run.path), "mode": mode} | asdict(report)
    print(f"{run.path}: {report.rows} rows, {report.sent} of them handed to W&B now")
    if report.url:
        print(f"the W&B run: {report.url}")
    else:
        print(
            "upload what is not there yet with: wandb sync"
            f" {run.wandb}/offline-run-*-{run.read_facts().wandb_id}*"
        )
    return {}


# --- dashboard ------------------------------------------------------------------------------------


def _add_dashboard(group: Subparsers) -> None:
    parser = add_command(
        group,
        "dashboard",
        _dashboard,
        "Make a workspace of W&B with a panel for every metric, or write its definition to a file",
        """
        electra-dist wandb dashboard runs/base           in the project of the run
        electra-dist wandb dashboard --project mine --entity my-team
        electra-dist wandb dashboard runs/base --out dashboard.json       without a network

        Sections: learning, health, speed, data. Made once for a project; made again, it is
        replaced. Needs the packages of the extra `dashboard`, no torch.
        """,
    )
    parser.add_argument("run_path", metavar="RUN", type=Path, nargs="?", help="run directory")
    parser.add_argument("--project", metavar="NAME", help="W&B project, in place of that of RUN")
    parser.add_argument("--entity", metavar="NAME", help="W&B user or team, in place of RUN's")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="write the definition there, and save nothing"
    )
    add_json(parser)


def _dashboard(arguments: argparse.Namespace) -> int:
    from electra_dist.tracking import dashboard

    place = _place(arguments)
    if arguments.out:
        dashboard.write(arguments.out, place)
        told = {"file": str(arguments.out), "url": None}
        sentence = f"the definition of the workspace: {arguments.out}"
    else:
        _check_mode("online", "--out")
        url = dashboard.save(place)
        told = {"file": None, "url": url}
        sentence = f"the workspace: {url}"
    if arguments.json:
        print_json(told)
    else:
        print(sentence)
    return 0


def _place(arguments: argparse.Namespace) -> Any:
    """Where the workspace belongs: what was given, else what RUN says, else the defaults."""
    from electra_dist import config as configuration
    from electra_dist.errors import UserError
    from electra_dist.runs.directory import RunDir
    from electra_dist.tracking.dashboard import Place

    if arguments.run_path is None:
        if arguments.project is None:
            raise UserError("give RUN, or the `project` of W&B that the workspace is for")
        return Place(arguments.project, arguments.entity)
    run = RunDir.existing(arguments.run_path)
    tracking = configuration.load(run.config).tracking
    return Place(arguments.project or tracking.project, arguments.entity or tracking.entity)
