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
    from rich.table import Table

    from launcher.groups import Group
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
        electra-dist status runs/sweep
        electra-dist status 123456 --json
        """,
        prints=True,
    )
    status.add_argument(
        "target",
        metavar="RUN|JOB|FOLDER",
        nargs="?",
        help="run directory, id of a Slurm job, or folder of runs (default: all in runs/)",
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
    from launcher.find import find_run, is_folder_of_runs
    from launcher.groups import groups
    from launcher.status import status

    if arguments.target is None:
        found = groups(_RUNS)
        if arguments.json:
            print_json([asdict(run) for group in found for run in group.runs])
        else:
            _print_groups(found)
        return 0
    if is_folder_of_runs(Path(arguments.target)):
        found = groups(Path(arguments.target))
        if arguments.json:
            print_json([asdict(group) for group in found])
        else:
            _print_groups(found)
        return 0
    one = status(find_run(arguments.target))
    if arguments.json:
        print_json(asdict(one))
    else:
        for name, value in _lines(one):
            print(f"{name + ':':<16}{value}")
    return 0


def _print_groups(found: list[Group]) -> None:
    """A table for each group, and under it how far its runs are together and which is the best."""
    from rich.markup import escape

    screen = console()
    for number, group in enumerate(found):
        if number:
            screen.print()
        screen.print(_table(group))
        if len(group.runs) > 1:
            screen.print(escape(_together(group)), highlight=False, soft_wrap=True)


def _table(group: Group) -> Table:
    """One line per run."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("run", "state", "job", "step", "held out", "checkpoint", "why", padding=(0, 0))
    for run in group.runs:
        name = run.run
        if run.run == group.best:
            name += " *"
        cells = (
            name,
            run.state,
            run.job_id or "",
            _step(run),
            _held_out(run),
            _count(run.last_checkpoint),
            run.why or "",
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _together(group: Group) -> str:
    """`runs/sweep: 3 runs: 2 running, 1 finished; 61.2% of all steps; * best: ...`"""
    states = ", ".join(f"{number} {state}" for state, number in group.states.items())
    parts = [f"{group.folder}: {len(group.runs)} runs: {states}"]
    if group.progress is not None:
        parts.append(f"{group.progress:.1%} of all steps")
    for run in group.runs:
        if run.run == group.best and run.best_held_out is not None:
            parts.append(f"* best: {run.run}, held-out {run.best_held_out.sentence}")
    return "; ".join(parts)


def _step(found: RunStatus) -> str:
    if found.step is None or not found.steps:
        return _count(found.step)
    return f"{found.step:,} of {found.steps:,}"


def _held_out(found: RunStatus) -> str:
    if found.best_held_out is None:
        return ""
    return f"{found.best_held_out.loss:.4f}"


def _count(number: int | None) -> str:
    if number is None:
        return ""
    return f"{number:,}"


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
        lines.append(("step", _step(found)))
    if found.generator_loss is not None and found.discriminator_loss is not None:
        lines.append(
            (
                "losses",
                f"generator {found.generator_loss:.3f}, discriminator"
                f" {found.discriminator_loss:.4f}",
            )
        )
    if found.best_held_out is not None:
        lines.append(("best held out", found.best_held_out.sentence))
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
    lines += _findings(found)
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


def _findings(found: RunStatus) -> list[tuple[str, str]]:
    """What the rules of health say, a line each; nothing where they judge nothing."""
    if found.findings:
        return [("health", finding.line) for finding in found.findings]
    if found.findings is None or found.real_tokens_per_s is None:
        return []
    return [("health", "no finding")]


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
