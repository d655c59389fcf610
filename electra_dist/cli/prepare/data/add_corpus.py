"""`electra-dist data add`."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json
from electra_dist.cli.prepare.data.shared import (
    add_again,
    add_filters,
    add_input,
    add_workers,
    check_documents,
    facts_of_inputs,
    find,
    print_facts,
    warn_of_shares,
)


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "add",
        _add,
        "Add a corpus to shards: new shards beside those that are there, which stay as they are;"
        " the fingerprint is new",
        """
        electra-dist data add shards --input new-corpus --workers 8
        """,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder with manifest.json")
    add_input(parser)
    add_workers(parser)
    add_filters(parser)
    add_again(parser)
    add_json(parser)


def _add(arguments: argparse.Namespace) -> int:
    from data_tools.build import BuildOptions, add_to_shards
    from electra_dist.console import bar

    options = BuildOptions(
        validation=arguments.validation,
        workers=arguments.workers,
        min_characters=arguments.min_characters,
        deduplicate=not arguments.keep_duplicates,
        again=arguments.again,
    )
    inputs = find(arguments)
    check_documents(arguments, inputs)
    with bar() as progress:
        stats = add_to_shards(arguments.shards, inputs, options, progress)
    print_facts(arguments, {**stats.to_dict(), **facts_of_inputs(arguments, inputs)})
    warn_of_shares(stats.shares)
    return 0
