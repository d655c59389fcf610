"""RUN and the checkpoint that is meant: `runs/base`, `runs/base@20000`, `runs/base@best`, or the
option `--step`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from electra_dist.errors import UserError

if TYPE_CHECKING:
    from electra_dist.runs.directory import RunDir


class Chosen(NamedTuple):
    """A run, and a step of it, `best`, or None for the newest."""

    run: RunDir
    step: int | Literal["best"] | None


def add_run_and_step(parser: argparse.ArgumentParser, or_model: bool = False) -> None:
    """RUN and `--step`; with `or_model`, the help says that a model folder can stand for RUN."""
    metavar = "RUN[@STEP]"
    text = "run directory; @2000 or @best behind it is a short form of --step"
    if or_model:
        metavar = "RUN[@STEP]|MODEL"
        text += "; or the folder of a model"
    parser.add_argument("run_path", metavar=metavar, help=text)
    add_step(parser)


def add_step(parser: argparse.ArgumentParser) -> None:
    """`--step`."""
    parser.add_argument(
        "--step",
        type=_step,
        metavar="N|best",
        help="checkpoint: its step, or best by validation.stop_metric (default: the newest)",
    )


def chosen(arguments: argparse.Namespace) -> Chosen:
    """What the arguments say; raises `UserError`. A folder whose name has an @ is that folder."""
    from electra_dist.runs.directory import RunDir

    text = arguments.run_path
    path, at, behind = text.rpartition("@")
    if not at or not path or Path(text).exists():
        return Chosen(RunDir.existing(text), arguments.step)
    try:
        step = _step(behind)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{text}: {error}") from None
    if arguments.step is not None:
        raise UserError(
            f"{text}: names a step, and so does --step {arguments.step}; give one of them"
        )
    return Chosen(RunDir.existing(path), step)


def only_model(arguments: argparse.Namespace, option: str) -> Path:
    """The one folder of `predict`; raises `UserError` where `option` got several."""
    first: Path = arguments.models[0]
    if len(arguments.models) > 1:
        raise UserError(f"{option}: takes one MODEL, found {len(arguments.models)}")
    return first


def _step(text: str) -> int | Literal["best"]:
    if text == "best":
        return "best"
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither the number of a step nor `best`")
