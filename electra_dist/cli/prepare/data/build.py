"""`electra-dist data build`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

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


class PartOf(NamedTuple):
    """Part `part` of `parts`, from 1."""

    part: int
    parts: int


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "build",
        _build,
        "Write shards: documents shuffled over the whole corpus, encoded, in WebDataset tars;"
        " interrupted, the same command goes on",
        """
        electra-dist data build --input corpus --tokenizer tokenizer --out shards --workers 8
        electra-dist data build --input corpus --tokenizer tokenizer --out parts/3 --part 3/8
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
    add_workers(parser)
    add_filters(parser)
    parser.add_argument(
        "--piece-tokens",
        type=int,
        default=8160,
        metavar="N",
        help="cut longer documents into pieces of at most N tokens, each with a place of its own in"
        " the shuffle; 0: whole (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1234, help="of the shuffle (default: %(default)s)"
    )
    parser.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="encode part I of N of the input, for `data merge`: one command on each node",
    )
    add_again(parser)
    add_json(parser)


def _part(text: str) -> PartOf:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, such as 3/8")
    return PartOf(int(found[1]), int(found[2]))


def _build(arguments: argparse.Namespace) -> int:
    from data_tools.build import BuildOptions, BuildStats, PartStats, build_part, build_shards
    from electra_dist.console import bar, warn

    options = BuildOptions(
        validation=arguments.validation,
        seed=arguments.seed,
        workers=arguments.workers,
        min_characters=arguments.min_characters,
        deduplicate=not arguments.keep_duplicates,
        piece_tokens=arguments.piece_tokens,
        again=arguments.again,
    )
    if options.validation == 0:
        warn(
            "--validation 0 holds nothing out: a run on these shards can be neither validated nor"
            " evaluated"
        )
    inputs = find(arguments)
    check_documents(arguments, inputs)
    source = (inputs, arguments.tokenizer, arguments.out)
    with bar() as progress:
        if arguments.part is None:
            stats: BuildStats | PartStats = build_shards(*source, options, progress)
        else:
            part = arguments.part
            stats = build_part(*source, part.part, part.parts, options, progress)
    print_facts(arguments, {**stats.to_dict(), **facts_of_inputs(arguments, inputs)})
    warn_of_shares(stats.shares)
    return 0
