"""`electra-dist launch`: starts the ranks of a run."""

from __future__ import annotations

import argparse
import sys

from electra_dist.commands.parsers import Subparsers, add_command, add_config, add_group


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    group = add_group(subparsers, "launch", "Start the ranks of a run")
    local = add_command(
        group,
        "local",
        _local,
        "Train with several processes on this machine; Ctrl-C reaches all of them, saves and ends them",
        """
        electra-dist launch local configs/quickstart.yaml --processes 2
        electra-dist launch local configs/base.yaml --processes 8 train.micro_rows=64

        exit status: that of `electra-dist train`; the output of every rank is in RUN/logs/
        """,
    )
    add_config(local)
    local.add_argument("--processes", type=int, required=True, metavar="N", help="ranks to start")


def _local(arguments: argparse.Namespace) -> int:
    from electra_dist import config
    from electra_dist.rundir import RunDir
    from launcher.local import launch_local

    resolved = config.load(arguments.config, arguments.overrides)
    config.check_world(resolved, arguments.processes)
    command = [sys.executable, "-m", "electra_dist.cli", "train", arguments.config, *arguments.overrides]
    if arguments.debug:
        command.append("--debug")
    return launch_local(command, arguments.processes, RunDir(resolved.run.path).logs)
