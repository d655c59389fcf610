"""`electra-dist watch`: a live view of runs in the terminal, from a login node and without
torch.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_json
from electra_dist.errors import UserError

if TYPE_CHECKING:
    from launcher.live.gathering import RunView

_LEAST_SECONDS = 0.2


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "watch",
        _watch,
        "Watch runs in the terminal: curves, held-out losses, speed, memory, findings, queue",
        """
        electra-dist watch runs/base
        electra-dist watch runs/sweep              a line per run, the best marked
        electra-dist watch runs/a runs/b --every 10
        electra-dist watch runs/base --once        one frame, for a script or a pipe

        q or Ctrl-C ends it; the runs go on
        """,
        prints=True,
    )
    parser.add_argument(
        "targets",
        metavar="RUN|JOB|FOLDER",
        nargs="+",
        help="run directory, id of a Slurm job, or folder of runs",
    )
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.add_argument(
        "--every",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds between two looks at the runs (default: %(default)g)",
    )
    parser.add_argument(
        "--ascii", action="store_true", help="draw with ASCII characters, whatever the terminal has"
    )
    add_json(parser)


def _watch(arguments: argparse.Namespace) -> int:
    from electra_dist.cli.parsers import console
    from launcher.live.gathering import Gatherer
    from launcher.live.show import has_unicode, show, show_once, views_of

    _check(arguments)
    gatherer = Gatherer(arguments.targets)
    if arguments.json:
        _print_json(views_of(gatherer))
        return 0
    screen = console(80)
    unicode = has_unicode(screen) and not arguments.ascii
    if arguments.once:
        show_once(gatherer, screen, unicode=unicode)
    else:
        show(gatherer, screen, arguments.every, unicode=unicode)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not arguments.every >= _LEAST_SECONDS:
        raise UserError(
            f"`every` {arguments.every:g}: expected at least {_LEAST_SECONDS} seconds between two"
            " looks at the runs"
        )
    if arguments.json and not arguments.once:
        raise UserError("`json` prints one frame: give `once` with it")
    if not arguments.once and (not sys.stdout.isatty() or _cannot_redraw()):
        raise UserError(
            "standard output is no terminal that can be drawn on again and again: give `once` for"
            " one frame"
        )


def _cannot_redraw() -> bool:
    from electra_dist.cli.parsers import console

    return console().is_dumb_terminal


def _print_json(views: tuple[RunView, ...]) -> None:
    from launcher.live.overview import best_of

    print_json({"runs": [_as_json(view) for view in views], "best": best_of(views)})


def _as_json(view: RunView) -> dict[str, Any]:
    """What a program wants of a view: the curves are in metrics.jsonl."""
    held_out = view.logged.held_out
    newest = None
    if held_out is not None:
        newest = {"step": held_out.step, **held_out.values}
    return asdict(view.status) | {
        "last": view.logged.last,
        "held_out": newest,
        "last_lines": view.log,
    }
