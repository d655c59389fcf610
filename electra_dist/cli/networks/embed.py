"""`electra-dist embed`: vectors of texts, from the layer of an encoder that serves best."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json

if TYPE_CHECKING:
    from electra_dist.embeddings.layers import LayerChoice


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "embed",
        _embed,
        "Turn texts into vectors, and find the layer of an encoder whose vectors are best",
        """
        electra-dist embed exported --input texts.txt --out vectors.npy
        electra-dist embed exported --choose-layer pairs.tsv
        electra-dist embed exported --choose-layer pairs.tsv --input texts.txt --out vectors.parquet
        electra-dist embed exported --choose-layer pairs.tsv --normalize --out-model sentences
        electra-dist finetune sentences --task embeddings --train pairs.tsv --out tuned
        electra-dist embed tuned --input texts.jsonl --out vectors.jsonl
        """,
    )
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="folder written by `export` or `finetune`"
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="texts: .txt (one a line), .tsv, .csv, .jsonl; default: standard input, one text a"
        " line",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="file for the vectors: .npy, .parquet or .jsonl"
    )
    parser.add_argument(
        "--out-model",
        type=Path,
        metavar="DIR",
        help="new folder for the encoder up to the layer, as sentence-transformers loads it",
    )
    _add_choice(parser)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: the GPU where there is one"
    )
    add_json(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """Where the vectors are taken from."""
    parser.add_argument(
        "--choose-layer",
        type=Path,
        metavar="PAIRS",
        help="measure every layer on pairs of texts that it was not trained on: .tsv, .csv, .jsonl"
        " with text, pair and a label, or with text and pair that belong together",
    )
    parser.add_argument(
        "--layer",
        type=_layer,
        metavar="N|best",
        help="0 are the embeddings (default: best with --choose-layer, else the last one)",
    )
    parser.add_argument(
        "--pool",
        choices=("mean", "cls"),
        help="the mean over all tokens, or the first token (default: that of the model, mean)",
    )
    parser.add_argument(
        "--normalize",
        action="store_true",
        default=None,
        help="vectors of length 1 (a model tuned for embeddings has them in any case)",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="tokens of a text, the rest is cut off (default: that of the model)",
    )
    parser.add_argument("--text", metavar="COLUMN", default="text", help="default: %(default)s")
    parser.add_argument("--pair", metavar="COLUMN", default="pair", help="default: %(default)s")
    parser.add_argument("--label", metavar="COLUMN", default="label", help="default: %(default)s")


def _layer(text: str) -> int | Literal["best"]:
    if text == "best":
        return "best"
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither the number of a layer nor `best`")


def _embed(arguments: argparse.Namespace) -> int:
    from electra_dist.embeddings.run import Settings, embed
    from electra_dist.finetune.labelled import Columns

    texts = arguments.input
    if texts is None and arguments.out is not None:
        texts = (line.rstrip("\r\n") for line in sys.stdin)
    settings = Settings(
        model=arguments.model,
        texts=texts,
        out=arguments.out,
        out_model=arguments.out_model,
        pairs=arguments.choose_layer,
        columns=Columns(arguments.text, arguments.pair, arguments.label),
        layer=arguments.layer,
        pool=arguments.pool,
        normalize=arguments.normalize,
        max_length=arguments.max_length,
        device=arguments.device,
    )
    report = embed(settings)
    if arguments.json:
        print_json(report.to_dict())
        return 0
    if report.choice is not None:
        _print_choice(report.choice)
    print(
        f"layer {report.layer} of {report.layers}, {report.pooling.pool} of up to"
        f" {report.max_length} tokens"
    )
    return 0


def _print_choice(choice: LayerChoice) -> None:
    from rich.table import Table

    table = Table(title=f"layers by {choice.main_score}; * is the best")
    table.add_column("layer")
    for name in choice.scores[0]:
        table.add_column(name, justify="right")
    for row in choice.rows():
        table.add_row(*row)
    console().print(table)
