"""`electra-dist checkpoint`: what a run has saved, whether it is whole, and what may go;
needs no torch.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_group,
    add_json,
    console,
    print_json,
)
from electra_dist.console import human_bytes, human_seconds

if TYPE_CHECKING:
    from electra_dist.config import Config
    from electra_dist.runs.checkpoints import CheckpointFacts
    from electra_dist.runs.directory import RunDir


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    group = add_group(subparsers, "checkpoint", "List, verify and remove what a run has saved")
    listing = add_command(
        group,
        "list",
        _list,
        "List the checkpoints of a run: step, age, size, healthy or not, whole or why not",
        """
        electra-dist checkpoint list runs/base
        electra-dist checkpoint list runs/base --json

        compares names and sizes of all files; `checkpoint verify` compares their content
        """,
    )
    _add_run(listing)
    verify = add_command(
        group,
        "verify",
        _verify,
        "Read every file of the checkpoints of a run and compare its SHA-256",
        """
        electra-dist checkpoint verify runs/base
        electra-dist checkpoint verify runs/base --step 20000

        exit status: 0 when all that were read are whole, 2 otherwise
        """,
    )
    _add_run(verify)
    verify.add_argument("--step", type=int, metavar="N", help="this one alone (default: all)")
    prune = add_command(
        group,
        "prune",
        _prune,
        "Remove old checkpoints of a run; never its newest whole ones, a milestone, the newest"
        " healthy one, or the best where checkpoint.keep_best is set",
        """
        electra-dist checkpoint prune runs/base --keep 1 --dry-run
        electra-dist checkpoint prune runs/base --keep 1
        electra-dist checkpoint prune runs/base --set-aside
        """,
    )
    _add_run(prune)
    prune.add_argument(
        "--keep", type=int, metavar="N", help="newest whole ones to keep (default: checkpoint.keep)"
    )
    prune.add_argument(
        "--set-aside",
        action="store_true",
        help="remove those too that a run went back behind (step-N.set-aside-xxxx)",
    )
    prune.add_argument("--dry-run", action="store_true", help="say what would go, touch nothing")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_path", metavar="RUN", type=Path, help="run directory")
    add_json(parser)


def _open(path: Path) -> RunDir:
    """The run, whose checkpoints can be listed; its config.yaml may be lost."""
    from electra_dist.errors import UserError
    from electra_dist.files.writing import reason
    from electra_dist.runs.directory import RunDir

    run = RunDir(path)
    try:
        os.listdir(run.checkpoints)
    except (FileNotFoundError, NotADirectoryError):
        return RunDir.existing(path)
    except OSError as error:
        raise UserError(f"{run.checkpoints}: cannot be read: {reason(error)}") from error
    return run


def _configuration(run: RunDir) -> Config:
    """That of config.yaml, else the one that the newest checkpoint carries."""
    import yaml

    from electra_dist import config as configuration
    from electra_dist.errors import ConfigError
    from electra_dist.runs.checkpoints import carried

    try:
        return configuration.load(run.config)
    except ConfigError:
        found = carried(run)
        if found is None or found.config_yaml is None:
            raise
        return configuration.build(yaml.safe_load(found.config_yaml))


def _milestones(run: RunDir) -> int | None:
    """`checkpoint.milestones_every`, for a list; what cannot be known is left out of it."""
    from electra_dist.errors import ConfigError

    try:
        return _configuration(run).checkpoint.milestones_every
    except ConfigError:
        return None


# --- list -----------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    from electra_dist.runs.checkpoints import list_checkpoints, set_aside
    from electra_dist.runs.checkpoints.memory import saving
    from electra_dist.runs.heldout.best import best_of_list

    run = _open(arguments.run_path)
    found = list_checkpoints(run, _milestones(run), best_of_list(run))
    aside = set_aside(run)
    remembered = saving(run)
    if arguments.json:
        print_json(
            {
                "run": str(run.path),
                "checkpoints": [facts.to_dict() for facts in found],
                "set_aside": [asdict(one) for one in aside],
                "saving": asdict(remembered) if remembered else None,
            }
        )
        return 0
    _print_table(found, f"{run.path}: no checkpoint")
    for one in aside:
        print(f"set aside: {one.path}, {human_bytes(one.bytes)}")
    if remembered and remembered.problem:
        print(
            f"saving fails: step {remembered.problem_step}, {remembered.failures} tries in a row:"
            f" {remembered.problem}"
        )
    return 0


def _print_table(found: list[CheckpointFacts], nothing: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not found:
        print(nothing)
        return
    table = Table(padding=(0, 1))
    for heading in ("step", "age", "size", "ranks"):
        table.add_column(heading, justify="right")
    for heading in ("healthy", "whole"):
        table.add_column(heading)
    for facts in found:
        table.add_row(
            _step(facts),
            _age(facts.saved),
            human_bytes(facts.bytes),
            "?" if facts.world_size is None else str(facts.world_size),
            escape({True: "yes", False: f"no: {facts.reason}", None: "not judged"}[facts.healthy]),
            escape(_whole(facts)),
        )
    console().print(table)


def _step(facts: CheckpointFacts) -> str:
    marks = {" milestone": facts.milestone, " best": facts.best}
    return f"{facts.step:,}" + "".join(mark for mark, holds in marks.items() if holds)


def _whole(facts: CheckpointFacts) -> str:
    if facts.whole:
        if facts.verified:
            return "yes"
        return "yes, by sizes"
    if len(facts.problems) > 1:
        more = f" and {len(facts.problems) - 1} more"
    else:
        more = ""
    return f"no: {facts.problems[0]}{more}"


def _age(saved: float | None) -> str:
    if saved is None:
        return "?"
    return human_seconds(max(0.0, time.time() - saved))


# --- verify ---------------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace) -> int:
    from electra_dist.console import bar
    from electra_dist.errors import EXIT_OK, EXIT_USER_ERROR, CheckpointError
    from electra_dist.runs.checkpoints import saved_steps, verify_checkpoint
    from electra_dist.runs.heldout.best import best_of_list

    run = _open(arguments.run_path)
    milestones = _milestones(run)
    best = best_of_list(run)
    if arguments.step is None:
        steps = saved_steps(run)
    else:
        steps = [arguments.step]
    if not steps:
        raise CheckpointError(f"{run.checkpoints}: no checkpoint to verify")
    found = []
    with bar(unit="MB") as progress:
        for step in steps:

            def told(done: int, total: int, step: int = step) -> None:
                progress(f"step {step}", math.ceil(done / 1e6), math.ceil(total / 1e6))

            found.append(verify_checkpoint(run, step, milestones, told, best))
    whole = all(facts.whole for facts in found)
    if arguments.json:
        print_json(
            {
                "run": str(run.path),
                "whole": whole,
                "checkpoints": [facts.to_dict() for facts in found],
            }
        )
    else:
        _print_table(found, "")
    if whole:
        return EXIT_OK
    return EXIT_USER_ERROR


# --- prune ----------------------------------------------------------------------------------------


def _prune(arguments: argparse.Namespace) -> int:
    from electra_dist.errors import UserError
    from electra_dist.runs import lock

    run = _open(arguments.run_path)
    config = _configuration(run)
    if arguments.keep is None:
        keep = config.checkpoint.keep
    else:
        keep = arguments.keep
    if keep < 1:
        raise UserError(
            f"--keep {keep}: at least the newest one stays; remove the run directory to remove all"
        )
    with ExitStack() as held:
        if not arguments.dry_run:  # who trains the run counts on what it has listed
            held.enter_context(lock.hold(run, "removes checkpoints of this run", brief=True))
        going, kept = _pruned(run, keep, config, arguments.set_aside, arguments.dry_run)
    _report_pruned(arguments, run, going, kept)
    return 0


def _pruned(
    run: RunDir, keep: int, config: Config, with_set_aside: bool, dry_run: bool
) -> tuple[dict[str, int], list[int]]:
    """Path and bytes of what goes, steps of what stays."""
    from electra_dist.errors import CheckpointError
    from electra_dist.files.writing import writing
    from electra_dist.runs.checkpoints import list_checkpoints, removable, set_aside
    from electra_dist.runs.checkpoints.folders import remove
    from electra_dist.runs.heldout.best import course_to_keep

    milestones_every = config.checkpoint.milestones_every
    found = list_checkpoints(run, milestones_every)
    whole = [facts.step for facts in found if facts.whole]
    if found and not whole:
        raise CheckpointError(
            f"{run.checkpoints}: no checkpoint is whole, so none is removed; see electra-dist"
            f" checkpoint list {run.path}"
        )
    steps = removable(run, keep, milestones_every, whole=whole, best=course_to_keep(run, config))
    going = {str(run.checkpoint(facts.step)): facts.bytes for facts in found if facts.step in steps}
    if with_set_aside:
        going |= {one.path: one.bytes for one in set_aside(run)}
    if not dry_run:
        with writing(run.checkpoints, "the removal of checkpoints"):
            for path in going:
                remove(Path(path))
    return going, [facts.step for facts in found if facts.step not in steps]


def _report_pruned(
    arguments: argparse.Namespace, run: RunDir, going: dict[str, int], kept: list[int]
) -> None:
    content: dict[str, Any] = {
        "run": str(run.path),
        "dry_run": arguments.dry_run,
        "removed": list(going),
        "bytes": sum(going.values()),
        "kept": kept,
    }
    if arguments.json:
        print_json(content)
        return
    if arguments.dry_run:
        verb = "would be removed"
    else:
        verb = "removed"
    for path, size in going.items():
        print(f"{verb}: {path}, {human_bytes(size)}")
    print(
        f"{human_bytes(content['bytes'])} {verb}; kept:"
        f" {', '.join(f'step {step:,}' for step in kept) or 'none'}"
    )
