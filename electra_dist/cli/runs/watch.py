"""`electra-dist status`, `logs` and `stop`: what a run does, from a login node and without
torch.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import Subparsers, add_command, add_json, console, print_json
from electra_dist.console import human_duration

if TYPE_CHECKING:
    from launcher.status import RunStatus

#: Where runs are, unless run.dir says otherwise.
_RUNS = Path("runs")
#: Age of the newest sign of a run that is worth a word.
_STILL_SECONDS = 120.0


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    status = add_command(
        subparsers,
        "status",
        _status,
        "Say what a run does: state, step, losses, speed, time left, last checkpoint, restarts, why"
        " it waits",
        """
        electra-dist status
        electra-dist status runs/base
        electra-dist status 123456 --json
        """,
        prints=True,
    )
    status.add_argument(
        "target",
        metavar="RUN|JOB",
        nargs="?",
        help="run directory, or id of a Slurm job (default: all in runs/)",
    )
    add_json(status)
    logs = add_command(
        subparsers,
        "logs",
        _logs,
        "Print the log of a rank, or of the job script",
        """
        electra-dist logs runs/base --follow
        electra-dist logs runs/base --rank 3 --lines 50
        electra-dist logs 123456 --script
        """,
        prints=True,
    )
    _add_target(logs)
    logs.add_argument("--rank", type=int, default=0, metavar="R", help="default: %(default)s")
    logs.add_argument(
        "--script", action="store_true", help="the log of the job script instead of a rank's"
    )
    logs.add_argument("--lines", type=int, metavar="N", help="the last N lines (default: all)")
    logs.add_argument("--follow", action="store_true", help="go on printing what is written")
    add_json(logs)
    stop = add_command(
        subparsers,
        "stop",
        _stop,
        "End a run for good: it saves at its next step, and its jobs are not requeued",
        """
        electra-dist stop runs/base
        """,
    )
    _add_target(stop)
    add_json(stop)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="RUN|JOB", help="run directory, or id of a Slurm job")


def _status(arguments: argparse.Namespace) -> int:
    from launcher.find import all_runs, find_run
    from launcher.status import status

    if arguments.target is None:
        return _all([status(run) for run in all_runs(_RUNS)], arguments.json)
    found = status(find_run(arguments.target))
    if arguments.json:
        print_json(asdict(found))
    else:
        for name, value in _lines(found):
            print(f"{name + ':':<16}{value}")
    return 0


def _all(found: list[RunStatus], as_json: bool) -> int:
    """One line a run."""
    if as_json:
        print_json([asdict(one) for one in found])
        return 0
    from rich.markup import escape
    from rich.table import Table

    table = Table("run", "state", "job", "step", "checkpoint", "why", padding=(0, 0))
    for one in found:
        if one.step is None:
            step = ""
        else:
            step = f"{one.step:,}{f' of {one.steps:,}' if one.steps else ''}"
        if one.last_checkpoint is None:
            checkpoint = ""
        else:
            checkpoint = f"{one.last_checkpoint:,}"
        table.add_row(
            escape(one.run), one.state, one.job_id or "", step, checkpoint, escape(one.why or "")
        )
    console().print(table)
    return 0


def _lines(found: RunStatus) -> list[tuple[str, str]]:
    """What is known, in words; what is not is left out."""
    state = found.state + (f" ({found.why})" if found.why else "")
    lines = [("run", found.run), ("state", state)]
    if found.job_id:
        lines.append(("job", f"{found.job_id}{' on ' + found.nodes if found.nodes else ''}"))
    if found.phase is not None:
        lines.append(("doing", _doing(found)))
    if found.starts_at:
        lines.append(("starts", found.starts_at))
    if found.time_left:
        lines.append(("time slot left", found.time_left))
    if found.step is not None:
        lines.append(("step", f"{found.step:,}{f' of {found.steps:,}' if found.steps else ''}"))
    if found.generator_loss is not None and found.discriminator_loss is not None:
        lines.append(
            (
                "losses",
                f"generator {found.generator_loss:.3f}, discriminator"
                f" {found.discriminator_loss:.4f}",
            )
        )
    if found.real_tokens_per_s is not None:
        lines.append(("speed", f"{found.real_tokens_per_s:,.0f} real tokens/s"))
    if found.seconds_left is not None:
        lines.append(("training left", human_duration(found.seconds_left)))
    if found.last_checkpoint is not None:
        lines.append(("checkpoint", f"step {found.last_checkpoint:,}{_health(found)}"))
    if found.best is not None:
        lines.append(("best", found.best.sentence))
    if found.rollbacks:
        number = len(found.rollbacks)
        lines.append(
            (
                "rollbacks",
                f"{number}; the last: {found.rollbacks[-1]}"
                if number > 1
                else str(found.rollbacks[0]),
            )
        )
    if found.saving_fails:
        lines.append(("saving fails", found.saving_fails))
    if found.broken_rows:
        lines.append(("broken rows", f"{found.broken_rows:,} of metrics.jsonl, left out"))
    lines.append(("restarts", str(found.restarts)))
    if found.held_by:
        lines.append(("lock held by", found.held_by))
    if found.log:
        lines.append(("log", found.log))
    return lines


def _health(found: RunStatus) -> str:
    if found.unhealthy is None:
        return ""
    if found.last_healthy is None:
        healthy = "none is"
    else:
        healthy = f"the newest that is: step {found.last_healthy:,}"
    return f", not healthy ({found.unhealthy}); {healthy}"


def _doing(found: RunStatus) -> str:
    """`step, last step 12 s ago`, and how long nothing has moved where that is long."""
    if found.step_age is None:
        step = "no step yet"
    else:
        step = f"last step {_ago(found.step_age)}"
    still = found.sign_age is not None and found.sign_age > _STILL_SECONDS
    return f"{found.phase}, {step}" + (
        f", nothing has moved for {human_duration(found.sign_age or 0)}" if still else ""
    )


def _ago(seconds: float) -> str:
    if seconds < 2 * 60:
        return f"{seconds:.0f} s ago"
    return f"{human_duration(seconds)} ago"


def _logs(arguments: argparse.Namespace) -> int:
    from launcher.find import find_run
    from launcher.logs import log_file, read_log

    path = log_file(find_run(arguments.target), None if arguments.script else arguments.rank)
    if arguments.json:
        print_json({"log": str(path), "text": "".join(read_log(path, arguments.lines))})
        return 0
    for text in read_log(path, arguments.lines, arguments.follow):
        print(text, end="", flush=True)
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from launcher.find import find_run
    from launcher.stop import stop

    result = stop(find_run(arguments.target))
    if arguments.json:
        print_json(asdict(result))
        return 0
    if result.told:
        print(f"told to save and end: job {', '.join(result.told)}")
    if result.process:
        print(f"told to save and end: process {result.process}")
    if result.cancelled:
        print(f"taken out of the queue: job {', '.join(result.cancelled)}")
    return 0
