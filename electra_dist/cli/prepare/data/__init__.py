"""`electra-dist data`: raw text to tokenizer to shards, and a look at what they hold."""

from __future__ import annotations

from electra_dist.cli.parsers import Subparsers, add_group
from electra_dist.cli.prepare.data import (
    build,
    checksums,
    clean,
    corpus,
    filters,
    inspect,
    tokenizer,
    verify,
)

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    group = add_group(subparsers, "data", "Prepare data: corpus, tokenizer, shards")
    for command in (corpus, filters, clean, tokenizer, build, inspect, verify, checksums):
        command.add(group)
