"""`electra-dist data clean`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json
from electra_dist.cli.prepare.data.shared import (
    add_again,
    add_input,
    check_documents,
    find,
)
from electra_dist.console import human_bytes

if TYPE_CHECKING:
    from data_tools.cleaning.report import CleanReport, FilterReport


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "clean",
        _clean,
        "Leave out what is not worth training on: filters, each counted, with a report",
        """
        electra-dist data clean --input corpus --out clean --filter length --filter exact
        electra-dist data clean --input corpus --out clean --filter length:min_words=20 --workers 8
        electra-dist data filters                          what there is, and the defaults
        """,
    )
    add_input(parser)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new folder for what is left"
    )
    parser.add_argument(
        "--filter",
        required=True,
        action="append",
        metavar="NAME[:KEY=VALUE,...]",
        help="a filter, and parameters in place of its defaults; may be given several times",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--compress", default="zst", metavar="zst|gz", help="of the files (default: %(default)s)"
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=3,
        metavar="N",
        help="of what each filter dropped (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1234, help="of the choice of examples (default: %(default)s)"
    )
    parser.add_argument("--no-picture", action="store_true", help="leave clean-report.png out")
    add_again(parser)
    add_json(parser)


def _clean(arguments: argparse.Namespace) -> int:
    from data_tools.cleaning.run import CleanOptions, clean_corpus
    from data_tools.filters.catalog import parse_filters
    from electra_dist.console import bar

    filters = parse_filters(arguments.filter)
    options = CleanOptions(
        workers=arguments.workers,
        seed=arguments.seed,
        examples=arguments.examples,
        compress=arguments.compress,
        picture=not arguments.no_picture,
        again=arguments.again,
    )
    inputs = find(arguments)
    check_documents(arguments, inputs)
    with bar("MB") as progress:
        report = clean_corpus(inputs, arguments.out, filters, options, progress)
    if arguments.json:
        found = {"path": str(arguments.out), "found": inputs.report.to_dict()}
        print_json({**found, **report.to_dict()})
    else:
        _print(report, arguments.out)
    return 0


def _print(report: CleanReport, out: Path) -> None:
    from rich.table import Table

    table = Table(
        "filter",
        title=f"{report.documents:,} documents, {report.characters:,} characters read",
        padding=(0, 0),
    )
    for heading in ("documents", "dropped", "share", "characters", "dropped", "share", "rewritten"):
        table.add_column(heading, justify="right")
    table.add_column("most by", overflow="fold")
    for one in report.filters:
        table.add_row(*_row(one))
    screen = console()
    screen.print(table)
    for one in report.filters:
        for example in one.examples:
            text = f"{one.name}, {example.reason}: {example.text}"
            screen.print(text, markup=False, highlight=False, overflow="ellipsis", no_wrap=True)
            if example.like:
                screen.print(
                    f"    like: {example.like}",
                    markup=False,
                    highlight=False,
                    overflow="ellipsis",
                    no_wrap=True,
                )
    print(
        f"kept: {report.kept_documents:,} documents,"
        f" {report.kept_characters:,} characters in {report.files} files"
        f" ({human_bytes(report.bytes)})"
    )
    print(f"{out}: clean-report.json has all examples; `data build --input {out}` reads it")


def _row(one: FilterReport) -> tuple[str, ...]:
    from data_tools.cleaning.report import share

    reasons = list(one.reasons.items())[:2]
    rewritten = f"{one.changed_documents:,}" if one.changed_documents else ""
    return (
        one.name,
        f"{one.documents:,}",
        f"{one.dropped_documents:,}",
        f"{share(one.dropped_documents, one.documents):.2%}",
        f"{one.characters:,}",
        f"{one.dropped_characters:,}",
        f"{share(one.dropped_characters, one.characters):.2%}",
        rewritten,
        ", ".join(f"{reason} {count:,}" for reason, count in reasons),
    )
