"""The options by which a run goes on otherwise than before, the same for `train`,
`launch local` and `launch slurm`.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, NamedTuple

from electra_dist.errors import ConfigError

if TYPE_CHECKING:
    from electra_dist.config import Config
    from electra_dist.runs.opening.going_on import GoingOn


def add_going_on(parser: argparse.ArgumentParser) -> None:
    """`--from-here`, `--from-step`, `--again`, `--branch` and `--start-over`."""
    parser.add_argument(
        "--from-here",
        action="store_true",
        help="accept changed keys that concern the steps to come (train.steps, optim.*, ...);"
        " recorded in run.json",
    )
    parser.add_argument(
        "--from-step",
        type=int,
        metavar="N",
        help="go back to the checkpoint of step N, once: later ones are set aside; changed keys"
        " hold from there",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="with --from-step: go back even if that was done before",
    )
    parser.add_argument(
        "--branch",
        metavar="NAME",
        help="start the run NAME from the newest checkpoint of this one (or from --from-step N),"
        " which is not touched",
    )
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="train from step 0 where the run has saved before and no checkpoint is whole any more;"
        " where one is, go on"
        " from it as always",
    )


class Resolved(NamedTuple):
    """The configuration of the run that trains, how it goes on,
    and overrides that give the same configuration.
    """

    config: Config
    how: GoingOn
    overrides: list[str]


def resolve(arguments: argparse.Namespace) -> Resolved:
    """Read CONFIG, its overrides and the options above; raises `ConfigError`."""
    from electra_dist import config as configuration
    from electra_dist.runs.heldout.best import check_metrics
    from electra_dist.runs.opening.going_on import GoingOn

    if arguments.again and arguments.from_step is None:
        raise ConfigError("--again: goes with --from-step N")
    config = configuration.load(arguments.config, arguments.overrides)
    overrides = list(arguments.overrides)
    branch_of = None
    if arguments.branch is not None:
        branch_of = config.run.path
        overrides.append(f"run.name={json.dumps(arguments.branch)}")  # JSON is YAML
        config = configuration.load(arguments.config, overrides)
        if config.run.path == branch_of:
            raise ConfigError(f"--branch {arguments.branch}: is the run itself; give another name")
    check_metrics(config)
    how = GoingOn(
        arguments.from_here, arguments.from_step, arguments.again, branch_of, arguments.start_over
    )
    return Resolved(config, how, overrides)
