"""`electra-dist data filters`."""

from __future__ import annotations

import argparse

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "filters",
        _filters,
        "List the filters of `data clean` in their order: parameters, defaults, sources",
        """
        electra-dist data filters
        electra-dist data filters --json
        """,
        prints=True,
    )
    add_json(parser)


def _filters(arguments: argparse.Namespace) -> int:
    from data_tools.filters.catalog import FILTERS

    if arguments.json:
        print_json(
            [
                {
                    "name": kind.name,
                    "drops": kind.drops,
                    "source": kind.source,
                    "parameters": [vars(parameter) for parameter in kind.parameters()],
                }
                for kind in FILTERS.values()
            ]
        )
        return 0

    from rich.table import Table

    for kind in FILTERS.values():
        table = Table("parameter", box=None, padding=(0, 2))
        table.add_column("default")
        table.add_column("meaning")
        for one in kind.parameters():
            table.add_row(one.name, str(one.default).lower(), one.meaning)
        out = console()
        out.print(f"{kind.name}: {kind.drops}", style="bold", highlight=False)
        out.print(table)
        out.print(f"  source: {kind.source}\n", highlight=False)
    return 0
