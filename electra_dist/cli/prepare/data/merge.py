"""`electra-dist data merge`."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json
from electra_dist.cli.prepare.data.shared import add_again, add_workers, print_facts, warn_of_shares


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "merge",
        _merge,
        "Make shards of the parts that `data build --part` encoded on several nodes, the same as"
        " one node makes",
        """
        electra-dist data merge parts/* --out shards --workers 8
        """,
    )
    parser.add_argument(
        "parts", nargs="+", type=Path, metavar="PART", help="the folders of all parts"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="SHARDS", help="new folder for the shards"
    )
    add_workers(parser)
    add_again(parser)
    add_json(parser)


def _merge(arguments: argparse.Namespace) -> int:
    from data_tools.build import merge_parts
    from electra_dist.console import bar

    with bar() as progress:
        stats = merge_parts(
            arguments.parts, arguments.out, arguments.workers, arguments.again, progress
        )
    print_facts(arguments, stats.to_dict())
    warn_of_shares(stats.shares)
    return 0
