"""`electra-dist data build`."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json
from electra_dist.cli.prepare.data.shared import add_input, print_facts


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "build",
        _build,
        "Write shards: documents shuffled over the whole corpus, encoded, in WebDataset tars",
        """
        electra-dist data build --input corpus --tokenizer tokenizer --out shards --workers 8
        """,
    )
    add_input(parser)
    parser.add_argument(
        "--tokenizer",
        required=True,
        type=Path,
        metavar="PATH",
        help="folder of `data tokenizer` or of transformers, a tokenizer.json or BERT's vocab.txt",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="SHARDS", help="new folder for the shards"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.0,
        metavar="F",
        help="fraction of the documents held out (default: 0)",
    )
    parser.add_argument(
        "--min-characters", type=int, default=1, metavar="N", help="leave shorter documents out"
    )
    parser.add_argument(
        "--keep-duplicates", action="store_true", help="keep documents that are exactly alike"
    )
    parser.add_argument(
        "--seed", type=int, default=1234, help="of the shuffle (default: %(default)s)"
    )
    add_json(parser)


def _build(arguments: argparse.Namespace) -> int:
    from data_tools.build import BuildOptions, build_shards
    from electra_dist.console import bar, warn

    options = BuildOptions(
        validation=arguments.validation,
        seed=arguments.seed,
        workers=arguments.workers,
        min_characters=arguments.min_characters,
        deduplicate=not arguments.keep_duplicates,
    )
    with bar() as progress:
        stats = build_shards(arguments.input, arguments.tokenizer, arguments.out, options, progress)
    print_facts(arguments, stats.to_dict())
    warning = stats.shares.warning()
    if warning:
        warn(warning)
    return 0
