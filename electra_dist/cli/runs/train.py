"""`electra-dist train`: one rank of a run; the same command alone, under torchrun and under
srun.
"""

from __future__ import annotations

import argparse
import os

from electra_dist.cli.parsers import Subparsers, add_command, add_config
from electra_dist.cli.runs.going_on import add_going_on, resolve
from electra_dist.errors import EXIT_OK, EXIT_UNFINISHED
from electra_dist.parallel import signs


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
        electra-dist train configs/base.yaml train.steps=2000000 --from-here
        electra-dist train configs/base.yaml optim.lr=1e-4 --branch slower --from-step 500000

        exit status: 0 finished, 75 interrupted and saved (run it again), 2 a mistake that the
        message names, 69 a rank hung, 70 training diverged, 74 the run's files cannot be written;
        docs/train.md has the whole table
        """,
    )
    add_config(parser)
    add_going_on(parser)


def _train(arguments: argparse.Namespace) -> int:
    resolved = resolve(arguments)
    environment = dict(os.environ)
    from electra_dist.train.watch.live import progress_line

    with progress_line(resolved.config.train.steps, environment):
        signs.sign("loading PyTorch and DeepSpeed")
        from electra_dist.train.run import train
        from electra_dist.train.trainer import Outcome

        evaluator = None
        if resolved.config.validation.evaluate_every is not None:
            from electra_dist.evaluate.in_training import EvaluatorInTraining

            evaluator = EvaluatorInTraining()
        outcome = train(resolved.config, environment, how=resolved.how, evaluator=evaluator)
    if outcome is Outcome.FINISHED:
        return EXIT_OK
    return EXIT_UNFINISHED
