"""`electra-dist data checksums`."""

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
        "checksums",
        _checksums,
        "Add a checksum of each block to shards that an earlier version made; their fingerprint"
        " stays",
        """
        electra-dist data checksums shards --workers 4
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


def _checksums(arguments: argparse.Namespace) -> int:
    from data_tools.checksums import add_checksums
    from electra_dist.console import bar
    from electra_dist.errors import DataError

    if arguments.workers < 1:
        raise DataError(f"--workers {arguments.workers}: expected at least 1")
    with bar() as progress:
        stats = add_checksums(arguments.shards, arguments.workers, progress)
    print_facts(arguments, stats.to_dict())
    return EXIT_OK
