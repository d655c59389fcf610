"""`electra-dist data corpus`."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json
from electra_dist.cli.prepare.data.shared import print_facts


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "corpus",
        _corpus,
        "Write a corpus that needs no download: the documentation of this Python installation",
        """
        electra-dist data corpus pydoc --out corpus
        """,
    )
    parser.add_argument("name", choices=("pydoc",), help="which corpus")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new folder for the .jsonl"
    )
    parser.add_argument(
        "--max-bytes", type=int, metavar="N", help="stop at this size (default: 25 MB)"
    )
    add_json(parser)


def _corpus(arguments: argparse.Namespace) -> int:
    from data_tools.corpus import MAX_BYTES, write_pydoc_corpus
    from electra_dist.console import bar

    with bar() as progress:
        stats = write_pydoc_corpus(
            arguments.out, arguments.max_bytes or MAX_BYTES, progress=progress
        )
    print_facts(arguments, stats.to_dict())
    return 0
