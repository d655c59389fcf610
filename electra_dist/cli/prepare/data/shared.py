"""What the data commands share: `--input`, and a list of facts."""

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
