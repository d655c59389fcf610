"""What the parsers of all subcommands share."""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from electra_dist.files.urls import is_url

if TYPE_CHECKING:
    from rich.console import Console

Run = Callable[[argparse.Namespace], int]
Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Run,
    summary: str,
    examples: str,
    *,
    prints: bool = False,
) -> argparse.ArgumentParser:
    """A subcommand with a summary and examples in its `--help`.

    `prints` says that its output is all that it does: it ends, with 0, when its reader does. Any
    other command goes on without its reader, and its exit status is that of the work.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=summary + ".",
        epilog="examples:\n" + textwrap.indent(textwrap.dedent(examples).strip("\n"), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, prints=prints)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_group(subparsers: Subparsers, name: str, summary: str) -> Subparsers:
    """A subcommand that only holds subcommands."""
    parser = subparsers.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=summary + ".",
        formatter_class=argparse.HelpFormatter,
    )
    return parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)


def add_config(parser: argparse.ArgumentParser) -> None:
    """CONFIG and its overrides."""
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")
    parser.add_argument(
        "overrides",
        metavar="key.sub=value",
        nargs="*",
        help="keys set in place of those in the file",
    )


def add_shards(parser: argparse.ArgumentParser) -> None:
    """SHARDS: a path, or the text of a URL."""
    parser.add_argument(
        "shards",
        type=_path_or_url,
        metavar="SHARDS",
        help="folder with manifest.json, or its URL (s3://, gs://, https://)",
    )


def _path_or_url(text: str) -> Path | str:
    if is_url(text):
        return text
    return Path(text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: for programs that read the output."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def console(elsewhere: int = 120) -> Console:
    """Where tables go: as wide as the terminal; `elsewhere` columns when the output is a file or a
    pipe, by default wide enough for every table.
    """
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else elsewhere)


def print_json(content: Any) -> None:
    """One JSON document on standard output."""
    print_result(json.dumps(content, indent=2, ensure_ascii=False))


def print_result(line: str) -> None:
    """A line of what the command gives, on standard output."""
    print(line, file=_result.get() or sys.stdout)


#: Standard output, while `results_apart` keeps it for what `print_result` prints.
_result: ContextVar[TextIO | None] = ContextVar("result", default=None)


@contextmanager
def results_apart() -> Iterator[None]:
    """Standard output is for `print_result` alone; what is printed otherwise, by a library too,
    goes to standard error: what a program reads must be JSON whoever else has something to say.
    """
    token = _result.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _result.reset(token)


def with_options(text: str, parsed: argparse.Namespace) -> str:
    """`text` with the arguments of the library as the options of this command.

    The library names an argument in backquotes: `from_step`. Where the command has an option of
    that name, it reads --from-step here.
    """

    def option(found: re.Match[str]) -> str:
        if not hasattr(parsed, found[1]):
            return found[0]
        return "--" + found[1].replace("_", "-")

    return re.sub("`([a-z_]+)`", option, text)
