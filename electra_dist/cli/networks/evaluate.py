"""`electra-dist evaluate`: how good both networks are on held-out text; one process, N of them on
this machine, or one rank under torchrun or srun.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from electra_dist.cli.networks.chosen import add_step, chosen
from electra_dist.cli.networks.evaluation_tables import print_evaluation
from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_json
from electra_dist.console import Progress, bar, silent
from electra_dist.errors import EXIT_OK, UserError
from electra_dist.files.writing import write_json, writing

if TYPE_CHECKING:
    from electra_dist.evaluate.subject import Subject
    from electra_dist.parallel.world import World


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "evaluate",
        _evaluate,
        "Measure both networks on held-out text, by token frequency too",
        """
        electra-dist evaluate runs/quickstart
        electra-dist evaluate runs/quickstart --rows all --plot evaluation.png
        electra-dist evaluate runs/quickstart --step 2000 --passages 4
        electra-dist evaluate runs/quickstart@best
        electra-dist evaluate runs/quickstart --shards other-shards --device cpu --json
        electra-dist evaluate runs/quickstart --rows all --processes 4
        electra-dist evaluate exported-pair --shards shards
        torchrun --nproc-per-node 8 -m electra_dist.cli evaluate runs/base --rows all --out all.json
        """,
    )
    parser.add_argument(
        "run_path",
        metavar="RUN[@STEP]|PAIR",
        help="run directory, where @2000 or @best behind it is a short form of --step; or a folder"
        " that holds the exported networks as PAIR/generator and PAIR/discriminator",
    )
    add_step(parser)
    parser.add_argument(
        "--rows",
        type=_rows,
        metavar="N|all",
        help="held-out rows, or all of them (default: validation.rows of the run, the trainer's"
        " own)",
    )
    parser.add_argument(
        "--shards",
        type=Path,
        metavar="DIR",
        help="other shards of the same tokenizer (default: those of the run; a pair has none)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: cuda where there is one"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw ROC, calibration and losses into this file"
    )
    parser.add_argument(
        "--passages", type=int, default=0, metavar="N", help="print N held-out passages, marked up"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="ranks to start on this machine; the numbers are those of one",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the JSON object into this file, and print nothing",
    )
    add_json(parser)


def _rows(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of rows nor `all`"
        ) from None


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.processes is not None:
        return _launch(arguments)
    from electra_dist.evaluate import evaluate
    from electra_dist.evaluate.plot import plot_evaluation
    from electra_dist.evaluate.ranks import joined
    from electra_dist.parallel.collectives import together

    with joined(os.environ, arguments.device) as world:
        with together(world):
            subject = _subject(arguments)
            _check_files(arguments)
        with _progress(world) as progress:
            evaluation = evaluate(
                subject,
                world,
                rows=arguments.rows,
                shards=arguments.shards,
                passages=arguments.passages,
                progress=progress,
            )
    if evaluation is None:  # rank 0 has it
        return EXIT_OK
    if arguments.plot:
        plot_evaluation(evaluation, arguments.plot)
    content = evaluation.to_dict() | {"plot": _text(arguments.plot)}
    if arguments.out:
        with writing(arguments.out, "the evaluation"):
            write_json(arguments.out, content)
    elif arguments.json:
        print_json(content)
    else:
        print_evaluation(evaluation)
        if arguments.plot:
            print(f"picture: {arguments.plot}")
    return EXIT_OK


def _subject(arguments: argparse.Namespace) -> Subject:
    """What is evaluated; raises `UserError`."""
    from electra_dist.evaluate.exported import ExportedPair, is_pair
    from electra_dist.evaluate.subject import RunSubject

    path = Path(arguments.run_path)
    if not is_pair(path):
        run, step = chosen(arguments)
        return RunSubject(run, step)
    if arguments.step is not None:
        raise UserError(
            f"`step` {arguments.step}: {path} is an export, which is of one step; leave it out"
        )
    return ExportedPair.open(path)


def _check_files(arguments: argparse.Namespace) -> None:
    """Raise `UserError` for a file that cannot be written, before the work."""
    from electra_dist.files.pictures import check_picture_path

    if arguments.plot:
        check_picture_path(arguments.plot)
    if arguments.out and (arguments.out.is_dir() or not arguments.out.parent.is_dir()):
        raise UserError(
            f"`out` {arguments.out}: is a folder, or lies in none; give a file in a folder that is"
            " there"
        )


@contextmanager
def _progress(world: World) -> Iterator[Progress]:
    """A bar where this process has the terminal to itself; a line on that of the launcher where
    rank 0 has one; nothing elsewhere.
    """
    from electra_dist.runs.progress import LINE_VARIABLE
    from electra_dist.train.watch.live import LinePipe

    if world.world_size == 1:
        with bar(unit="rows") as progress:
            yield progress
        return
    if not world.is_main:
        yield silent
        return
    with closing(LinePipe(os.environ.get(LINE_VARIABLE))) as pipe:
        yield lambda stage, done, total: pipe.tell(f"{stage}: {done:,} of {total:,}")


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    return str(path)


# --- several processes ----------------------------------------------------------------------------


def _launch(arguments: argparse.Namespace) -> int:
    """Start the ranks on this machine, each with the same command without `--processes`."""
    from launcher.local import launch_local

    if arguments.processes < 1:
        raise UserError(f"`processes` {arguments.processes}: expected at least 1")
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        raise UserError(
            f"`processes` {arguments.processes}: this process is a rank already (RANK and"
            " WORLD_SIZE are set); leave one of them out"
        )
    _subject(arguments)  # a mistake is one line, and starts nothing
    _check_files(arguments)
    folder = Path(tempfile.mkdtemp(prefix="electra-dist-evaluate-"))
    result = arguments.out
    prints_json = arguments.json and result is None
    if prints_json:
        result = folder / "evaluation.json"
    command = [sys.executable, "-m", "electra_dist.cli", "evaluate", *_words(arguments, result)]
    status = launch_local(command, arguments.processes, folder)
    if status != EXIT_OK:
        return status  # the launcher has named the log, which is kept
    if prints_json:
        print_json(json.loads(result.read_bytes()))
    shutil.rmtree(folder)
    return EXIT_OK


def _words(arguments: argparse.Namespace, result: Path | None) -> list[str]:
    """The command line of a rank, which writes the JSON object into `result`."""
    options = {
        "--step": arguments.step,
        "--rows": arguments.rows,
        "--shards": arguments.shards,
        "--device": arguments.device,
        "--plot": arguments.plot,
        "--passages": arguments.passages,
        "--out": result,
    }
    words = [arguments.run_path]
    for name, value in options.items():
        if value is not None:
            words += [name, str(value)]
    if arguments.debug:
        words.append("--debug")
    return words
