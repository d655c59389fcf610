"""`electra-dist data`: raw text to tokenizer to shards, and a look at what they hold."""

from __future__ import annotations

from electra_dist.cli.parsers import Subparsers, add_group
from electra_dist.cli.prepare.data import (
    add_corpus,
    build,
    clean,
    corpus,
    filters,
    inspect,
    merge,
    sources,
    tokenizer,
    upgrade,
    verify,
)

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    group = add_group(subparsers, "data", "Prepare data: corpus, tokenizer, shards")
    commands = (
        corpus,
        sources,
        filters,
        clean,
        tokenizer,
        build,
        merge,
        add_corpus,
        inspect,
        verify,
        upgrade,
    )
    for command in commands:
        command.add(group)
