"""`electra-dist completion`: the script with which a shell completes commands, options and files.

Comes in: the whole parser, which `build_parser` leaves in every parsed command line as `root`.
Goes out: a script on standard output. It is static, so that pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command

SHELLS = ("bash", "zsh")
#: Metavars of arguments that are paths, though they are parsed as text.
_PATHS = ("CONFIG",)


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "completion",
        _completion,
        "Print a script that lets the shell complete commands, options and files",
        """
        electra-dist completion bash > ~/.local/share/bash-completion/completions/electra-dist
        electra-dist completion zsh > ~/.zsh/completions/_electra-dist

        For this shell alone (bash): source <(electra-dist completion bash)
        The folder for zsh must be in `fpath` before `compinit` runs.
        Print the script again after an update.
        """,
        prints=True,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    for action in _actions(arguments.root):
        if action.type is Path or action.metavar in _PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
    print(shtab.complete(arguments.root, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of `parser` and of the commands below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
