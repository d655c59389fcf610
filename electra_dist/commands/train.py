"""`electra-dist train`: one rank of a run; the same command alone, under torchrun and under srun."""

from __future__ import annotations

import argparse
import os

from electra_dist.commands.parsers import Subparsers, add_command, add_config
from electra_dist.errors import EXIT_OK, EXIT_UNFINISHED


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "train",
        _train,
        "Train, or go on with an interrupted run; Ctrl-C saves and says how to go on",
        """
        electra-dist train configs/quickstart.yaml                      one process
        electra-dist train configs/quickstart.yaml run.name=second train.steps=500
        torchrun --nproc-per-node 8 -m electra_dist.cli train configs/base.yaml
        srun electra-dist train configs/base.yaml                       one task a GPU

        exit status: 0 finished, 75 interrupted and saved (run it again), 2 a mistake that the message names
        """,
    )
    add_config(parser)


def _train(arguments: argparse.Namespace) -> int:
    from electra_dist import config

    resolved = config.load(arguments.config, arguments.overrides)
    from electra_dist.train.run import train
    from electra_dist.train.trainer import Outcome

    outcome = train(resolved, dict(os.environ))
    return EXIT_OK if outcome is Outcome.FINISHED else EXIT_UNFINISHED
