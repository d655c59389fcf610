"""`electra-dist data sources`."""

from __future__ import annotations

import argparse
from typing import Any

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
        "sources",
        _sources,
        "Show what an input holds, what of it is read, and what would be left out",
        """
        electra-dist data sources --input corpus
        electra-dist data sources --input 'corpus/**/*.parquet' --text-key content
        electra-dist data sources --input s3://bucket/corpus --strict
        """,
        prints=True,
    )
    add_input(parser)
    add_json(parser)


def _sources(arguments: argparse.Namespace) -> int:
    from data_tools.sources import split_parts

    inputs = find(arguments)
    look = check_documents(arguments, inputs)
    parts = split_parts(inputs)
    facts: dict[str, Any] = facts_of_inputs(arguments, inputs)
    facts["parts_for_workers"] = len(parts)
    facts["text_bytes_about"] = sum(part.text_bytes for part in parts)
    if look.whole:
        facts["documents"] = look.documents
    else:
        facts["documents_looked_at"] = look.documents
    if look.documents:
        facts["median_characters"] = look.median_characters
    print_facts(arguments, facts)
    return 0
