"""`electra-dist export`: consolidated weights for `transformers`."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.networks.chosen import add_run_and_step, chosen
from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_json


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "export",
        _export,
        "Write the weights of a run as a Hugging Face model, and check that it computes the same",
        """
        electra-dist export runs/quickstart --out exported
        electra-dist export runs/quickstart --out exported-generator --network generator --step 400
        electra-dist export runs/quickstart@best --out exported-best
        """,
    )
    add_run_and_step(parser)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new folder for the model"
    )
    parser.add_argument(
        "--network",
        choices=("discriminator", "generator"),
        default="discriminator",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--positions",
        type=int,
        metavar="N",
        help="tokens of the longest text that the model takes; those beyond a row of the training"
        " are not trained (default: the length of a row)",
    )
    add_json(parser)


def _export(arguments: argparse.Namespace) -> int:
    from electra_dist.export.run import export_run

    run, step = chosen(arguments)
    report = export_run(run, arguments.out, arguments.network, step, arguments.positions)
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(report.summary())
    return 0
