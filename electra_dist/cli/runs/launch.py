"""`electra-dist launch`: starts the ranks of a run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_config,
    add_group,
    add_json,
    print_json,
    with_options,
)
from electra_dist.cli.runs.going_on import add_going_on, resolve
from electra_dist.errors import UserError

if TYPE_CHECKING:
    from electra_dist.config import Config
    from electra_dist.data.sources import RunData
    from electra_dist.runs.opening.going_on import GoingOn
    from launcher.slurm.submit import Launch, Submission


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    group = add_group(subparsers, "launch", "Start the ranks of a run")
    local = add_command(
        group,
        "local",
        _local,
        "Train with several processes on this machine; Ctrl-C reaches all of them, saves and ends"
        " them",
        """
        electra-dist launch local configs/quickstart.yaml --processes 2
        electra-dist launch local configs/base.yaml --processes 8 train.micro_rows=64

        exit status: that of `electra-dist train`; the output of every rank is in RUN/logs/
        """,
    )
    add_config(local)
    add_going_on(local)
    local.add_argument("--processes", type=int, required=True, metavar="N", help="ranks to start")
    _add_slurm(group)


def _add_slurm(group: Subparsers) -> None:
    slurm = add_command(
        group,
        "slurm",
        _slurm,
        "Submit a run to Slurm: checks everything first, writes the job script, prints the next"
        " commands",
        """
        electra-dist launch slurm configs/base.yaml --cluster gpu-gres --nodes 4 --dry-run
        electra-dist launch slurm configs/base.yaml --cluster mine --nodes 1-4 run.name=base-2
        electra-dist launch slurm configs/base.yaml --cluster mine --nodes 2 --chain 5
        electra-dist launch slurm configs/base.yaml --cluster mine --array optim.lr=2e-4,5e-4
        electra-dist launch slurm --new-profile
        """,
    )
    slurm.add_argument("config", metavar="CONFIG", nargs="?", help="configuration file (YAML)")
    slurm.add_argument(
        "overrides",
        metavar="key.sub=value",
        nargs="*",
        help="keys set in place of those in the file",
    )
    slurm.add_argument("--cluster", metavar="NAME", help="cluster profile: a name or a path of one")
    slurm.add_argument(
        "--new-profile", action="store_true", help="ask about this cluster and save a profile of it"
    )
    slurm.add_argument(
        "--nodes", default="1", metavar="N|A-B", help="nodes, or a range (default: %(default)s)"
    )
    slurm.add_argument("--time", metavar="LIMIT", help="time limit, in place of the profile's")
    slurm.add_argument(
        "--chain",
        type=int,
        default=1,
        metavar="K",
        help="K jobs, each going on where the last stopped",
    )
    slurm.add_argument(
        "--array",
        action="append",
        default=[],
        metavar="key.sub=A,B",
        help="one run a value; may be given again",
    )
    add_going_on(slurm)
    slurm.add_argument("--exclude", metavar="NODES", help="nodes to stay away from")
    slurm.add_argument("--after", metavar="JOB", help="start when this job has ended")
    slurm.add_argument(
        "--torchrun",
        action="store_true",
        help="start the ranks by torchrun instead of one task each",
    )
    slurm.add_argument("--no-preflight", action="store_true", help="do not measure the nodes first")
    slurm.add_argument(
        "--ignore-plan", action="store_true", help="submit even what the plan says cannot work"
    )
    slurm.add_argument("--dry-run", action="store_true", help="print the job script, touch nothing")
    add_json(slurm)


def _local(arguments: argparse.Namespace) -> int:
    from electra_dist.config import check_world
    from electra_dist.runs import lock
    from electra_dist.runs.directory import RunDir
    from electra_dist.runs.progress import read_vitals
    from launcher.local import launch_local

    resolved = resolve(arguments)
    check_world(resolved.config, arguments.processes)
    command = [
        sys.executable,
        "-m",
        "electra_dist.cli",
        "train",
        arguments.config,
        *resolved.overrides,
    ]
    if arguments.debug:
        command.append("--debug")
    run = RunDir(resolved.config.run.path)
    data = _checked(resolved.config, resolved.how)
    with lock.hold(run) as lease:  # before the first byte goes to a log; rank 0 takes it over
        _go_on(resolved.config, data, resolved.how)
        handed = {**os.environ, lock.HANDED_DOWN: lease.token}
        return launch_local(
            command,
            arguments.processes,
            run.logs,
            environment=handed,
            vitals=lambda: read_vitals(run),
        )


def _checked(config: Config, how: GoingOn) -> RunData:
    """The data of the run;
    raises `UserError` where the run cannot go on with it as `how` says.
    """
    from electra_dist.data.sources import open_data
    from electra_dist.runs.directory import RunDir
    from electra_dist.runs.opening.start import check_run

    data = open_data(config)
    check_run(RunDir(config.run.path), config, data.fingerprint, how)
    return data


def _go_on(config: Config, data: RunData, how: GoingOn) -> None:
    """Do what was asked, once, here: the ranks just go on. A plain start is left to them."""
    from electra_dist.runs.opening.going_on import PLAIN
    from electra_dist.runs.opening.start import open_run

    if how != PLAIN:
        open_run(config, data, _warn, _say, how)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _warn(text: str) -> None:
    _say(f"warning: {text}")


def _slurm(arguments: argparse.Namespace) -> int:
    from electra_dist.runs.opening.going_on import PLAIN
    from launcher.slurm.submit import Request, prepare

    if arguments.new_profile:
        return _new_profile()
    if not arguments.config or not arguments.cluster:
        raise UserError(
            "launch slurm needs CONFIG and --cluster NAME; --new-profile makes a"
            " profile of this cluster"
        )
    request = Request(
        cluster=arguments.cluster,
        nodes=arguments.nodes,
        time_limit=arguments.time,
        chain=arguments.chain,
        sweep=tuple(arguments.array),
        exclude=arguments.exclude,
        after=arguments.after,
        torchrun=arguments.torchrun,
        ignore_plan=arguments.ignore_plan,
        preflight=() if arguments.no_preflight else Request.preflight,
    )
    resolved = resolve(arguments)
    how = resolved.how
    if arguments.array and how != PLAIN:
        raise UserError(
            "--array with --from-here, --from-step or --branch: start these runs one at a time"
        )
    launch = prepare(arguments.config, resolved.overrides, request, dry_run=arguments.dry_run)
    data = [_checked(config, how) for config in launch.runs]
    for text in dict.fromkeys(forecast.text() for forecast in launch.forecasts):
        # beside the script, which may be redirected into a file
        print(with_options(text, arguments), file=sys.stderr)
    if launch.inherited.ignored:
        print(f"note: {launch.inherited.ignored}", file=sys.stderr)
    if arguments.dry_run:
        if arguments.json:
            print_json({"script": launch.script})
        else:
            print(launch.script, end="")
        return 0
    submission = _submit(launch, data, how)
    if arguments.json:
        runs = [str(path) for path in submission.runs]
        plans = [asdict(forecast) for forecast in launch.forecasts]
        print_json(
            {
                "job_ids": submission.job_ids,
                "script": str(submission.script),
                "runs": runs,
                "plans": plans,
            }
        )
        return 0
    print(f"submitted job {', '.join(submission.job_ids)}: {submission.script}")
    print("\n".join(submission.next_commands))
    return 0


def _submit(launch: Launch, data: Sequence[RunData], how: GoingOn) -> Submission:
    """Write and submit under the locks of all runs;
    raises `LockedError` when somebody trains one of them.
    """
    from electra_dist.runs import lock
    from electra_dist.runs.directory import RunDir
    from launcher.records import next_number
    from launcher.slurm.preconditions import check_free
    from launcher.slurm.submit import submit

    with ExitStack() as held:
        for run_dir in launch.job.run_dirs:
            held.enter_context(lock.hold(RunDir(run_dir), "submits a job of this run", brief=True))
        check_free(launch.job.run_dirs)  # as the checks before, now that nobody else submits
        if next_number({*launch.job.run_dirs, launch.script_path.parents[1]}) != launch.job.number:
            raise UserError(
                f"{launch.script_path}: another launch was submitted just now; start this one again"
            )
        for config, of_run in zip(launch.runs, data, strict=True):
            _go_on(config, of_run, how)
        return submit(launch)


def _new_profile() -> int:
    from launcher.slurm.clusters import write_profile
    from launcher.slurm.discover import ask_profile

    try:
        name, cluster = ask_profile(
            lambda question, default: input(f"{question} [{default}]: ").strip() or default
        )
    except EOFError as error:
        raise UserError(
            "--new-profile: the answers ended early, nothing was saved; run it in a terminal"
        ) from error
    path = write_profile(name, cluster)
    print(
        f"{path}: saved; look it over, then: electra-dist launch slurm CONFIG --cluster {name}"
        " --dry-run"
    )
    return 0
