"""What the data commands share: the options of the input and others, and a list of facts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from electra_dist.cli.parsers import print_json, with_options
from electra_dist.console import warn

if TYPE_CHECKING:
    from data_tools.sources import Inputs, Look
    from data_tools.tokenizer import Shares


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add `--input` and how it is read."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, folders, quoted globs, URLs (s3://, gs://, hf://, https://), hub:NAME, - for"
        " standard input: .txt .jsonl .json .csv .tsv .parquet .arrow, also .gz .zst .bz2 .xz",
    )
    group.add_argument(
        "--documents",
        choices=("blank-line", "line", "file"),
        default="blank-line",
        help="what ends a document in .txt (default: %(default)s)",
    )
    group.add_argument(
        "--text-key",
        default="text",
        metavar="KEY",
        help="key or column with the text; a.b for b inside of a (default: %(default)s)",
    )
    group.add_argument(
        "--format",
        metavar="FORMAT",
        help="format of standard input, and of named files with another suffix: jsonl, txt.gz, ...",
    )
    group.add_argument(
        "--strict", action="store_true", help="refuse inputs of which something would be left out"
    )


def find(arguments: argparse.Namespace) -> Inputs:
    """The inputs that the options name, and a warning for what is left out."""
    from data_tools.sources import ReadOptions, describe, find_inputs

    options = ReadOptions(
        documents=arguments.documents,
        text_key=arguments.text_key,
        strict=arguments.strict,
        format=arguments.format,
    )
    inputs = find_inputs(arguments.input, options)
    lost = inputs.report.lost
    if lost:
        warn(f"left out of the input: {describe(lost)}; --strict refuses such inputs")
    return inputs


def check_documents(arguments: argparse.Namespace, inputs: Inputs) -> Look:
    """Look at some documents, and warn where they look wrong."""
    from data_tools.sources import look_at

    look = look_at(inputs)
    if look.warning:
        warn(with_options(look.warning, arguments))
    return look


def facts_of_inputs(arguments: argparse.Namespace, inputs: Inputs) -> dict[str, Any]:
    """What was read and left out: in a few words, or in full for programs."""
    report = inputs.report
    if arguments.json:
        return {"inputs": report.to_dict()}
    facts = {"input": report.read_line()}
    if report.left_out:
        facts["left_out"] = report.left_out_line()
    return facts


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


def warn_of_shares(shares: Shares) -> None:
    """Warn where the tokenizer does not fit the text."""
    warning = shares.warning()
    if warning:
        warn(warning)


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
