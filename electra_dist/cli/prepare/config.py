"""`electra-dist config`: a recipe to start from, what a configuration resolves to, its schema."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
    group = add_group(subparsers, "config", "Start from a recipe, look at configurations")
    _add_new(group)
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


def _add_new(group: Subparsers) -> None:
    parser = add_command(
        group,
        "new",
        _new,
        "Print a recipe that comes with the program, comments included; without NAME, list them",
        """
        electra-dist config new
        electra-dist config new quickstart > my-run.yaml
        electra-dist config new base --out my-run.yaml
        """,
        prints=True,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="recipe; left out: list them all")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write it here; a file that exists is left alone"
    )


def _new(arguments: argparse.Namespace) -> int:
    from electra_dist.config.recipes import read_recipe, recipe_names
    from electra_dist.errors import StorageError, UserError
    from electra_dist.files.writing import reason, write_whole_new

    if arguments.name is None:
        if arguments.out is not None:
            raise UserError(f"--out {arguments.out}: goes with the NAME of a recipe")
        print(_listing())
        return 0
    if arguments.name not in recipe_names():
        print(_listing(), file=sys.stderr)  # not into the file that the output may go to
    recipe = read_recipe(arguments.name)
    if arguments.out is None:
        print(recipe.text, end="")
        return 0
    try:
        write_whole_new(arguments.out, recipe.text)
    except FileExistsError as error:
        raise UserError(
            f"--out {arguments.out}: exists already; nothing was changed, give another name"
        ) from error
    except OSError as error:
        raise StorageError(f"--out {arguments.out}: cannot be written: {reason(error)}") from error
    print(
        f"{arguments.out}: the recipe {recipe.name}; look at all of it with electra-dist config"
        f" show {arguments.out}"
    )
    return 0


def _listing() -> str:
    """One line per recipe: its name, and what it is."""
    from electra_dist.config.recipes import recipes

    found = recipes()
    width = max(len(recipe.name) for recipe in found)
    return "\n".join(f"{recipe.name:<{width}}  {recipe.about}" for recipe in found)


def _show(arguments: argparse.Namespace) -> int:
    from electra_dist import config
    from electra_dist.runs.heldout.best import check_metrics

    resolved = config.load(arguments.config, arguments.overrides)
    check_metrics(resolved)
    if arguments.json:
        print_json(resolved.model_dump(mode="json"))
    else:
        print(config.resolved_yaml(resolved), end="")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from electra_dist import config

    print_json(config.json_schema())
    return 0
