"""`electra-dist data verify`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_json
from electra_dist.errors import EXIT_OK, EXIT_USER_ERROR


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "verify",
        _verify,
        "Check every shard against the manifest: presence, size, SHA-256, every block",
        """
        electra-dist data verify shards
        """,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder with manifest.json")
    add_json(parser)


def _verify(arguments: argparse.Namespace) -> int:
    from data_tools.inspect import verify_shards
    from electra_dist.console import bar

    with bar() as progress:
        report = verify_shards(arguments.shards, progress=progress)
    if arguments.json:
        print_json(report.to_dict())
    elif report.ok:
        counts = (
            f"{report.files} files, {report.blocks:,} blocks, {report.documents:,} documents,"
            f" {report.tokens:,} tokens"
        )
        print(f"{report.path}: whole ({counts})")
    else:
        for problem in report.problems:
            print(f"error: {problem}", file=sys.stderr)
    if report.ok:
        return EXIT_OK
    return EXIT_USER_ERROR
