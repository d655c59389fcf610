"""`electra-dist data verify`."""

from __future__ import annotations

import argparse
import os
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
        electra-dist data verify shards --workers 16 --json
        """,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder with manifest.json")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="shards at a time (default: one for each core of this process)",
    )
    add_json(parser)


def _verify(arguments: argparse.Namespace) -> int:
    from data_tools.verify import verify_shards
    from electra_dist.console import bar

    workers = arguments.workers
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    with bar("MB") as progress:
        report = verify_shards(arguments.shards, progress=progress, workers=workers)
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
