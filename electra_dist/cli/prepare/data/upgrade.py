"""`electra-dist data upgrade`."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json
from electra_dist.cli.prepare.data.shared import print_facts
from electra_dist.errors import EXIT_OK


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "upgrade",
        _upgrade,
        "Bring shards that an earlier version made to the format of today; their fingerprint stays",
        """
        electra-dist data upgrade shards --workers 4
        """,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder with manifest.json")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="shards at a time (default: %(default)s)",
    )
    add_json(parser)


def _upgrade(arguments: argparse.Namespace) -> int:
    from data_tools.upgrade import upgrade_shards
    from electra_dist.console import bar

    with bar() as progress:
        stats = upgrade_shards(arguments.shards, arguments.workers, progress)
    print_facts(arguments, stats.to_dict())
    return EXIT_OK
