"""`electra-dist config`: what a configuration resolves to, and its schema."""

from __future__ import annotations

import argparse

from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_config,
    add_group,
    add_json,
    print_json,
)


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    group = add_group(subparsers, "config", "Look at configurations")
    show = add_command(
        group,
        "show",
        _show,
        "Print the resolved configuration: presets and defaults filled in, overrides applied",
        """
        electra-dist config show configs/quickstart.yaml
        electra-dist config show configs/base.yaml optim.lr=1e-4 zero.stage=1
        """,
        prints=True,
    )
    add_config(show)
    add_json(show)
    add_command(
        group,
        "schema",
        _schema,
        "Print the JSON Schema of a configuration file, for editors",
        """
        electra-dist config schema > electra-dist.schema.json
        """,
        prints=True,
    )


def _show(arguments: argparse.Namespace) -> int:
    from electra_dist import config

    resolved = config.load(arguments.config, arguments.overrides)
    if arguments.json:
        print_json(resolved.model_dump(mode="json"))
    else:
        print(config.resolved_yaml(resolved), end="")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from electra_dist import config

    print_json(config.json_schema())
    return 0
