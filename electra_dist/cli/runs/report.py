"""`electra-dist report`: what came of one run or of several, as tables, a picture and a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json
from electra_dist.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from electra_dist.report import Comparison, RunReport


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "report",
        _report,
        "Show what came of runs: a table, their curves as a picture, one page that compares them",
        """
        electra-dist report runs/quickstart
        electra-dist report runs/quickstart --plot curves.png
        electra-dist report runs/quickstart --json
        electra-dist report runs/quickstart runs/my-run --html report.html
        electra-dist report runs/sweep --html report.html
        """,
        prints=True,
    )
    parser.add_argument(
        "run_paths",
        metavar="RUN",
        type=Path,
        nargs="+",
        help="run directory, or a folder of them (a sweep)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the curves of one run into this file"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that compares the runs"
    )
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="draw the bands of this reference into the page; also a file of your own (.json)",
    )
    add_json(parser)


def _report(arguments: argparse.Namespace) -> int:
    from electra_dist.report import compare, plot_curves, read_report, report_of

    comparison = compare(arguments.run_paths, arguments.reference)
    runs = comparison.runs
    if len(runs) == 1 and not comparison.problems:
        reports = [read_report(runs[0].run)]
    else:
        reports = [report_of(loaded) for loaded in runs]
    if arguments.plot and len(runs) > 1:
        raise UserError(
            f"`plot` draws one run, and these are {len(runs)}: give one, or ask for a page with"
            " `html`"
        )
    if arguments.plot:
        plot_curves(runs[0], arguments.plot)
    if arguments.html:
        _write_page(comparison, arguments.html)
    if arguments.json:
        written = {name: _path_of(arguments, name) for name in ("plot", "html")}
        print_json(_content(comparison, reports) | written)
        return 0
    for sentence in comparison.problems:
        print(f"note: {sentence}")
    if len(reports) == 1:
        console().print(_table_of_one(reports[0]))
    else:
        console().print(_table_of_many(comparison, reports))
    if arguments.plot:
        print(f"curves: {arguments.plot}")
    if arguments.html:
        print(f"page: {arguments.html}")
    return 0


def _path_of(arguments: argparse.Namespace, name: str) -> str | None:
    path: Path | None = getattr(arguments, name)
    if path is None:
        return None
    return str(path)


def _write_page(comparison: Comparison, out: Path) -> None:
    from datetime import UTC, datetime

    from electra_dist.files.writing import write_atomically, writing
    from electra_dist.report import render_page

    page = render_page(comparison, datetime.now(UTC))
    with writing(out, "the page"):
        write_atomically(out, page)


def _content(comparison: Comparison, reports: list[RunReport]) -> dict[str, object]:
    """One run is an object of its own; several are a list, next to what was left out."""
    if len(reports) == 1 and not comparison.problems:
        return reports[0].to_dict()
    return {
        "runs": [report.to_dict() for report in reports],
        "problems": list(comparison.problems),
    }


def _table_of_one(report: RunReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None, show_lines=False)
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for row in report.rows():
        table.add_row(*map(Text, row))
    return table


def _table_of_many(comparison: Comparison, reports: list[RunReport]) -> Table:
    """A row for each run: the newest numbers on held-out rows."""
    from rich.table import Table
    from rich.text import Text

    from electra_dist.console import human_number

    table = Table(title=None, show_lines=False)
    table.add_column("run")
    for name in ("step", "real tokens", "tokens/s", "G loss", "D loss", "D AUC"):
        table.add_column(name, justify="right")
    table.add_column("health")
    for loaded, report in zip(comparison.runs, reports, strict=True):
        held_out = ("generator loss", "discriminator loss", "discriminator AUC")
        losses = [human_number(report.held_out[name][1]) for name in held_out]
        speed = "?"
        if report.tokens_per_s is not None:
            speed = f"{report.tokens_per_s:,.0f}"
        health = f"{len(report.findings)} open findings"
        if not report.findings:
            health = "nothing found"
        table.add_row(
            Text(loaded.label),
            f"{report.step:,}",
            f"{report.real_tokens:,}",
            speed,
            *losses,
            health,
        )
    return table
