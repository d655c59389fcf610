"""`electra-dist report`: what came of a run, as a table and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "report",
        _report,
        "Show what came of a run: a table, and its curves as a picture",
        """
        electra-dist report runs/quickstart
        electra-dist report runs/quickstart --plot curves.png
        electra-dist report runs/quickstart --json
        """,
        prints=True,
    )
    parser.add_argument("run_path", metavar="RUN", type=Path, help="run directory")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves into this file")
    add_json(parser)


def _report(arguments: argparse.Namespace) -> int:
    from electra_dist.runs.directory import RunDir
    from electra_dist.runs.report import plot_curves, read_report

    run = RunDir.existing(arguments.run_path)
    report = read_report(run)
    if arguments.plot:
        plot_curves(run, arguments.plot)
    if arguments.json:
        print_json(report.to_dict() | {"plot": str(arguments.plot) if arguments.plot else None})
        return 0
    from rich.table import Table

    table = Table(title=None, show_lines=False)
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for row in report.rows():
        table.add_row(*row)
    console().print(table)
    if arguments.plot:
        print(f"curves: {arguments.plot}")
    return 0
