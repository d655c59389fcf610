"""What the data commands share: options, and a list of facts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from electra_dist.cli.parsers import print_json


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add `--input`: what is read."""
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=Path,
        metavar="PATH",
        help=".txt (documents apart by blank lines), .jsonl, .jsonl.gz (with a key `text`), or"
        " folders of them",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add `--workers`."""
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)"
    )


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add which documents are kept, and which are held out."""
    parser.add_argument(
        "--validation",
        type=float,
        default=0.01,
        metavar="F",
        help="fraction of the documents held out, at least 20 of them; 0: none (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--min-characters", type=int, default=1, metavar="N", help="leave shorter documents out"
    )
    parser.add_argument(
        "--keep-duplicates", action="store_true", help="keep documents that are exactly alike"
    )


def add_again(parser: argparse.ArgumentParser) -> None:
    """Add `--again`."""
    parser.add_argument(
        "--again",
        action="store_true",
        help="throw away what an unfinished command has made, and start over",
    )


def print_facts(arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Print one fact a line, or all of them as JSON."""
    if arguments.json:
        print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' ') + ':':<24}{_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{_shown(inner)} {str(name).replace('_', ' ')}" for name, inner in value.items()
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
