"""`electra-dist data verify`."""

from __future__ import annotations

import argparse
import os
import sys

from electra_dist.cli.parsers import Subparsers, add_command, add_json, add_shards, print_json
from electra_dist.errors import EXIT_OK, EXIT_USER_ERROR


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "verify",
        _verify,
        "Check every shard against the manifest: presence, size, SHA-256, every block;"
        " at a URL each shard is streamed once and not kept",
        """
        electra-dist data verify shards
        electra-dist data verify shards --workers 16 --json
        electra-dist data verify s3://bucket/corpus/shards --workers 16
        """,
    )
    add_shards(parser)
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
        note = ""
        if not report.listed:
            note = "; files that the manifest does not name are not looked for at a URL"
        print(f"{report.path}: whole ({counts}){note}")
    else:
        for problem in report.problems:
            print(f"error: {problem}", file=sys.stderr)
    if report.ok:
        return EXIT_OK
    return EXIT_USER_ERROR
