"""`electra-dist data tokenizer`."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_json
from electra_dist.cli.prepare.data.shared import (
    add_input,
    check_documents,
    facts_of_inputs,
    find,
    print_facts,
)


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "tokenizer",
        _tokenizer,
        "Train a tokenizer; `transformers.AutoTokenizer` loads the folder",
        """
        electra-dist data tokenizer --input corpus --vocab-size 32768 --out tokenizer
        electra-dist data tokenizer --input a.txt --vocab-size 16384 --lowercase --out tokenizer
        electra-dist data tokenizer --input code --vocab-size 32768 --keep-whitespace --out code-tok
        electra-dist data tokenizer --input games --vocab-size 5000 --kind words --out moves
        """,
    )
    add_input(parser)
    parser.add_argument(
        "--vocab-size", required=True, type=int, metavar="N", help="ids, special tokens included"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new folder for the tokenizer"
    )
    parser.add_argument(
        "--kind",
        default="bpe",
        choices=("bpe", "unigram", "words"),
        help="of the pieces; `words` takes symbols apart by white space (default: %(default)s)",
    )
    parser.add_argument(
        "--normalize",
        choices=("nfc", "nfkc", "none"),
        help="Unicode normal form; nfkc turns x² into x2 (default: nfc, and none for words)",
    )
    parser.add_argument(
        "--keep-whitespace",
        action="store_true",
        help="keep line ends, tabs and indentation, for code (default: a run becomes one space)",
    )
    parser.add_argument(
        "--lowercase", action="store_true", help="fold case (the published ELECTRA does)"
    )
    parser.add_argument("--seed", type=int, default=1234, help="default: %(default)s")
    parser.add_argument(
        "--again", action="store_true", help="replace a tokenizer that is in DIR already"
    )
    add_json(parser)


def _tokenizer(arguments: argparse.Namespace) -> int:
    from data_tools.tokenizer import train_tokenizer
    from electra_dist.console import bar

    inputs = find(arguments)
    check_documents(arguments, inputs)
    with bar() as progress:
        stats = train_tokenizer(
            inputs,
            arguments.vocab_size,
            arguments.out,
            seed=arguments.seed,
            kind=arguments.kind,
            normalize=arguments.normalize,
            lowercase=arguments.lowercase,
            again=arguments.again,
            keep_whitespace=arguments.keep_whitespace,
            progress=progress,
        )
    print_facts(arguments, {**stats.to_dict(), **facts_of_inputs(arguments, inputs)})
    return 0
