"""`electra-dist sync`: bring W&B the rows of metrics.jsonl that it has not."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_json


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "sync",
        _sync,
        "Bring W&B the rows of metrics.jsonl that it has not: none is left out, none sent twice",
        """
        electra-dist sync runs/base                   to the server, with the login of `wandb login`
        electra-dist sync runs/base --offline         files for `wandb sync` on another machine
        electra-dist sync runs/base --seconds 60 --json

        Also while the run trains offline, and after W&B was out of reach. Needs wandb, no torch.
        """,
    )
    parser.add_argument("run_path", metavar="RUN", type=Path, help="run directory")
    parser.add_argument(
        "--offline", action="store_true", help="write files in RUN/wandb instead of uploading"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=600.0,
        metavar="S",
        help="give up after that long (default: %(default)g)",
    )
    add_json(parser)


def _sync(arguments: argparse.Namespace) -> int:
    from electra_dist.errors import UserError
    from electra_dist.runs.directory import RunDir
    from electra_dist.tracking.wandb import Mode, choose_mode, mirror_once

    run = RunDir.existing(arguments.run_path)
    wanted: Mode
    if arguments.offline:
        wanted = "offline"
    else:
        wanted = "online"
    choice = choose_mode(wanted, os.environ)
    if choice.mode != wanted:
        raise UserError(
            f"W&B is {choice.mode} by WANDB_MODE or WANDB_DISABLED of the environment: unset it"
            + ("" if choice.mode == "disabled" else ", or give --offline")
        )
    report = mirror_once(run, choice.mode, arguments.seconds, os.environ)
    if arguments.json:
        print_json({"run": str(run.path), "mode": choice.mode} | asdict(report))
        return 0
    print(f"{run.path}: {report.rows} rows, {report.sent} of them handed to W&B now")
    if report.url:
        print(f"the W&B run: {report.url}")
    else:
        print(
            "upload what is not there yet with: wandb sync"
            f" {run.wandb}/offline-run-*-{run.read_facts().wandb_id}"
        )
    return 0
