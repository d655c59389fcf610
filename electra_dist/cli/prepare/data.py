"""`electra-dist data`: raw text to tokenizer to shards, and a look at what they hold."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_group,
    add_json,
    console,
    print_json,
)
from electra_dist.errors import EXIT_OK, EXIT_USER_ERROR


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    group = add_group(subparsers, "data", "Prepare data: corpus, tokenizer, shards")
    _add_corpus(group)
    _add_tokenizer(group)
    _add_build(group)
    _add_inspect(group)
    _add_verify(group)
    _add_checksums(group)


def _add_corpus(group: Subparsers) -> None:
    parser = add_command(
        group,
        "corpus",
        _corpus,
        "Write a corpus that needs no download: the documentation of this Python installation",
        """
        electra-dist data corpus pydoc --out corpus
        """,
    )
    parser.add_argument("name", choices=("pydoc",), help="which corpus")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new folder for the .jsonl"
    )
    parser.add_argument(
        "--max-bytes", type=int, metavar="N", help="stop at this size (default: 25 MB)"
    )
    add_json(parser)


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=Path,
        metavar="PATH",
        help=".txt (documents apart by blank lines), .jsonl, .jsonl.gz (with a key `text`), or"
        " folders of them",
    )


def _add_tokenizer(group: Subparsers) -> None:
    parser = add_command(
        group,
        "tokenizer",
        _tokenizer,
        "Train a SentencePiece tokenizer; `transformers.AutoTokenizer` loads the folder",
        """
        electra-dist data tokenizer --input corpus --vocab-size 32768 --out tokenizer
        electra-dist data tokenizer --input a.txt --vocab-size 16384 --lowercase --out tokenizer
        """,
    )
    _add_input(parser)
    parser.add_argument(
        "--vocab-size", required=True, type=int, metavar="N", help="ids, special tokens included"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new folder for the tokenizer"
    )
    parser.add_argument(
        "--lowercase", action="store_true", help="fold case (the published ELECTRA does)"
    )
    parser.add_argument("--seed", type=int, default=1234, help="default: %(default)s")
    add_json(parser)


def _add_build(group: Subparsers) -> None:
    parser = add_command(
        group,
        "build",
        _build,
        "Write shards: documents shuffled over the whole corpus, encoded, in WebDataset tars",
        """
        electra-dist data build --input corpus --tokenizer tokenizer --out shards --workers 8
        """,
    )
    _add_input(parser)
    parser.add_argument(
        "--tokenizer", required=True, type=Path, metavar="DIR", help="from `data tokenizer`"
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


def _add_inspect(group: Subparsers) -> None:
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
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder with manifest.json")
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


def _add_verify(group: Subparsers) -> None:
    parser = add_command(
        group,
        "verify",
        _verify,
        "Check every shard against the manifest: presence, size, SHA-256, every block",
        """
        electra-dist data verify shards
        """,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder with manifest.json")
    add_json(parser)


def _add_checksums(group: Subparsers) -> None:
    parser = add_command(
        group,
        "checksums",
        _checksums,
        "Add a checksum of each block to shards that an earlier version made; their fingerprint"
        " stays",
        """
        electra-dist data checksums shards --workers 4
        """,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder with manifest.json")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="shards at a time (default: %(default)s)",
    )
    add_json(parser)


def _print_facts(arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
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


def _corpus(arguments: argparse.Namespace) -> int:
    from data_tools.corpus import MAX_BYTES, write_pydoc_corpus
    from electra_dist.console import bar

    with bar() as progress:
        stats = write_pydoc_corpus(
            arguments.out, arguments.max_bytes or MAX_BYTES, progress=progress
        )
    _print_facts(arguments, stats.to_dict())
    return 0


def _tokenizer(arguments: argparse.Namespace) -> int:
    from data_tools.tokenizer import train_tokenizer
    from electra_dist.console import bar

    with bar() as progress:
        stats = train_tokenizer(
            arguments.input,
            arguments.vocab_size,
            arguments.out,
            seed=arguments.seed,
            lowercase=arguments.lowercase,
            progress=progress,
        )
    _print_facts(arguments, stats.to_dict())
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from data_tools.build import BuildOptions, build_shards
    from electra_dist.console import bar

    options = BuildOptions(
        validation=arguments.validation,
        seed=arguments.seed,
        workers=arguments.workers,
        min_characters=arguments.min_characters,
        deduplicate=not arguments.keep_duplicates,
    )
    with bar() as progress:
        stats = build_shards(arguments.input, arguments.tokenizer, arguments.out, options, progress)
    _print_facts(arguments, stats.to_dict())
    return 0


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
    for sample in report.samples:
        out.print("sample: " + " ".join(sample.split())[:300], markup=False, highlight=False)
    return 0


def _checksums(arguments: argparse.Namespace) -> int:
    from data_tools.checksums import add_checksums
    from electra_dist.console import bar
    from electra_dist.errors import DataError

    if arguments.workers < 1:
        raise DataError(f"--workers {arguments.workers}: expected at least 1")
    with bar() as progress:
        stats = add_checksums(arguments.shards, arguments.workers, progress)
    _print_facts(arguments, stats.to_dict())
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    from data_tools.inspect import verify_shards
    from electra_dist.console import bar

    with bar() as progress:
        report = verify_shards(arguments.shards, progress=progress)
    if arguments.json:
        print_json(report.to_dict())
    elif report.ok:
        counts = (
            f"{report.files} files, {report.blocks:,} blocks, {report.documents:,} documents,"
            f" {report.tokens:,} tokens"
        )
        print(f"{report.path}: whole ({counts})")
    else:
        for problem in report.problems:
            print(f"error: {problem}", file=sys.stderr)
    if report.ok:
        return EXIT_OK
    return EXIT_USER_ERROR
