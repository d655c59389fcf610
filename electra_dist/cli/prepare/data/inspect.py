"""`electra-dist data inspect`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_json,
    add_shards,
    console,
    print_json,
)

if TYPE_CHECKING:
    from data_tools.inspect import InspectReport


def add(group: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        group,
        "inspect",
        _inspect,
        "Show what shards hold: counts, document lengths, padding at row lengths, samples",
        """
        electra-dist data inspect shards
        electra-dist data inspect shards --samples 3 --row-lengths 128 512
        """,
        prints=True,
    )
    add_shards(parser)
    parser.add_argument(
        "--row-lengths",
        type=int,
        nargs="+",
        default=[128, 256, 512, 1024],
        metavar="L",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=2,
        metavar="N",
        help="documents to print (default: %(default)s)",
    )
    add_json(parser)


def _inspect(arguments: argparse.Namespace) -> int:
    from data_tools.inspect import inspect_shards
    from electra_dist.console import bar

    with bar() as progress:
        report = inspect_shards(
            arguments.shards, arguments.row_lengths, arguments.samples, progress
        )
    if arguments.json:
        print_json(report.to_dict())
        return 0
    from rich.table import Table

    splits = Table(
        "split",
        title=f"{report.path}: vocabulary {report.vocab_size:,}, {report.used_ids:,} of it used,"
        f" unigram entropy {report.unigram_entropy:.3f} nats",
    )
    for heading in (
        "shards",
        "blocks",
        "documents",
        "tokens",
        "MB",
        "tokens/document",
        "median",
        "95%",
    ):
        splits.add_column(heading, justify="right")
    for name, split in report.splits.items():
        counts = (split.shards, split.blocks, split.documents, split.tokens)
        lengths = (split.length_quantiles.get("0.5", 0), split.length_quantiles.get("0.95", 0))
        splits.add_row(
            name,
            *(f"{count:,}" for count in counts),
            f"{split.bytes / 1e6:.1f}",
            f"{split.tokens_per_document:.0f}",
            *(f"{length:,}" for length in lengths),
        )
    packing = Table("row length", title="packing of the split train")
    for heading in ("rows", "padding", "documents/row"):
        packing.add_column(heading, justify="right")
    for rows in report.packing:
        packing.add_row(
            str(rows.row_length),
            f"{rows.rows:,}",
            f"{rows.padding:.2%}",
            f"{rows.documents_per_row:.1f}",
        )
    out = console()
    out.print(splits, packing)
    print(_facts(report))
    for sample in report.samples:
        out.print("sample: " + " ".join(sample.split())[:300], markup=False, highlight=False)
    return 0


def _facts(report: InspectReport) -> str:
    """What is said of the shards as a whole, in lines."""
    pieces = "documents are not cut"
    if report.piece_tokens is not None:
        pieces = f"documents above {report.piece_tokens:,} tokens are cut"
    checksums = "with checksums"
    if not report.block_checksums:
        checksums = "without checksums (`electra-dist data upgrade` adds them)"
    return (
        f"tokens: {report.byte_share:.2%} spelt in bytes, {report.unknown_share:.2%} unknown;"
        f" {report.token_bytes} bytes each on disk\n"
        f"blocks: up to {report.block_tokens:,} tokens, {checksums}; {pieces};"
        f" shuffled with seed {report.seed}\n"
        f"fingerprints: data {report.fingerprint[:16]}, tokenizer"
        f" {report.tokenizer_fingerprint[:16]}"
    )
