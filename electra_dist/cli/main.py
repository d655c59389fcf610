"""The command line: finds the subcommand, runs it, turns errors into one line and an exit status.

The exit statuses are those of `electra_dist.errors.EXIT_STATUSES`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

from electra_dist import __version__
from electra_dist.cli.networks import (
    embed,
    evaluate,
    export,
    finetune,
    predict,
    search,
    serve,
)
from electra_dist.cli.parsers import results_apart, with_options
from electra_dist.cli.prepare import bench, completion, config, data, plan, preflight
from electra_dist.cli.runs import checkpoint, launch, report, status, train, wandb, watch
from electra_dist.console import open_missing_streams, outlive_readers
from electra_dist.errors import EXIT_CRASH, EXIT_CTRL_C, UserError
from electra_dist.parallel import early, ending

#: Packages that the core does without -> the extra that brings them.
_EXTRAS = {
    **dict.fromkeys(("torch", "deepspeed", "wandb", "matplotlib"), "train"),
    "optuna": "search",
    **dict.fromkeys(("transformers", "accelerate", "sklearn", "scipy"), "hf"),
    **dict.fromkeys(("fastapi", "fastapi_offline", "prometheus_client", "uvicorn"), "serve"),
}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="electra-dist",
        description="Pre-train ELECTRA encoders with DeepSpeed ZeRO-3, from raw text to exported"
        " weights.",
        epilog="The order of the work: data, plan, train (or launch, watch, status, logs,"
        " stop, checkpoint), report, wandb,"
        " evaluate, export, finetune, search, embed, predict, serve. COMMAND --help has examples.",
    )
    parser.add_argument("--version", action="version", version=f"electra-dist {__version__}")
    parser.set_defaults(root=parser)  # for `completion`, which describes all of it
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    in_order = (
        data,
        config,
        plan,
        bench,
        preflight,
        train,
        launch,
        watch,
        status,
        checkpoint,
        report,
        wandb,
        evaluate,
        export,
        finetune,
        search,
        embed,
        predict,
        serve,
        completion,
    )
    for command in in_order:
        command.add(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    parsed = _parse(arguments)
    if not parsed.prints:
        outlive_readers()
    try:
        with results_apart() if getattr(parsed, "json", False) else nullcontext():
            status: int = parsed.run(parsed)
    except UserError as error:
        if parsed.debug:
            raise
        _print_error(error, parsed)
        return error.exit_status
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if parsed.debug or extra is None:
            raise
        missing = UserError(f"this command needs {error.name}: pip install 'electra-dist[{extra}]'")
        _print_error(missing, parsed)
        return missing.exit_status
    except KeyboardInterrupt:
        return EXIT_CTRL_C
    except BrokenPipeError:
        if not parsed.prints:
            raise
        # `electra-dist status | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; overrides may stand on either side of the options,
    which argparse alone does not allow.
    """
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(parsed, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *rest]
    return parsed


def _print_error(error: UserError, parsed: argparse.Namespace) -> None:
    """An error that every rank raises is printed by rank 0 alone; any other names its rank."""
    text = with_options(str(error), parsed)
    rank = int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
    if rank == 0:
        print(f"error: {text}", file=sys.stderr)
    elif not error.everywhere:
        print(f"rank {rank}: error: {text}", file=sys.stderr)


def entry() -> NoReturn:
    """`electra-dist` in a shell: run `main`, end with its status;
    a crash too ends without waiting for anybody (`electra_dist.parallel.ending`).
    """
    open_missing_streams()
    early.listen(sys.argv[1:], os.environ)
    try:
        status = main()
    except Exception as error:
        ending.print_once(error)
        status = EXIT_CRASH
    ending.end(status)
