"""`electra-dist launch`: starts the ranks of a run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from electra_dist.commands.parsers import Subparsers, add_command, add_config, add_group, add_json, print_json
from electra_dist.errors import UserError


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    group = add_group(subparsers, "launch", "Start the ranks of a run")
    local = add_command(
        group,
        "local",
        _local,
        "Train with several processes on this machine; Ctrl-C reaches all of them, saves and ends them",
        """
        electra-dist launch local configs/quickstart.yaml --processes 2
        electra-dist launch local configs/base.yaml --processes 8 train.micro_rows=64

        exit status: that of `electra-dist train`; the output of every rank is in RUN/logs/
        """,
    )
    add_config(local)
    local.add_argument("--processes", type=int, required=True, metavar="N", help="ranks to start")
    _add_slurm(group)


def _add_slurm(group: Subparsers) -> None:
    slurm = add_command(
        group,
        "slurm",
        _slurm,
        "Submit a run to Slurm: checks everything first, writes the job script, prints the next commands",
        """
        electra-dist launch slurm configs/base.yaml --cluster gpu-gres --nodes 4 --dry-run
        electra-dist launch slurm configs/base.yaml --cluster mine --nodes 1-4 run.name=base-2
        electra-dist launch slurm configs/base.yaml --cluster mine --nodes 2 --chain 5
        electra-dist launch slurm configs/base.yaml --cluster mine --array optim.lr=2e-4,5e-4
        electra-dist launch slurm --new-profile
        """,
    )
    slurm.add_argument("config", metavar="CONFIG", nargs="?", help="configuration file (YAML)")
    slurm.add_argument("overrides", metavar="key.sub=value", nargs="*", help="keys set in place of those in the file")
    slurm.add_argument("--cluster", metavar="NAME", help="cluster profile: a name or a path of one")
    slurm.add_argument("--new-profile", action="store_true", help="ask about this cluster and save a profile of it")
    slurm.add_argument("--nodes", default="1", metavar="N|A-B", help="nodes, or a range (default: %(default)s)")
    slurm.add_argument("--time", metavar="LIMIT", help="time limit, in place of the profile's")
    slurm.add_argument("--chain", type=int, default=1, metavar="K", help="K jobs, each going on where the last stopped")
    slurm.add_argument(
        "--array", action="append", default=[], metavar="key.sub=A,B", help="one run a value; may be given again"
    )
    slurm.add_argument("--exclude", metavar="NODES", help="nodes to stay away from")
    slurm.add_argument("--after", metavar="JOB", help="start when this job has ended")
    slurm.add_argument("--torchrun", action="store_true", help="start the ranks by torchrun instead of one task each")
    slurm.add_argument("--no-preflight", action="store_true", help="do not measure the nodes first")
    slurm.add_argument("--ignore-plan", action="store_true", help="submit even what the plan says cannot work")
    slurm.add_argument("--dry-run", action="store_true", help="print the job script, touch nothing")
    add_json(slurm)


def _local(arguments: argparse.Namespace) -> int:
    from electra_dist import config
    from electra_dist.rundir import RunDir
    from launcher.local import launch_local

    resolved = config.load(arguments.config, arguments.overrides)
    config.check_world(resolved, arguments.processes)
    command = [sys.executable, "-m", "electra_dist.cli", "train", arguments.config, *arguments.overrides]
    if arguments.debug:
        command.append("--debug")
    return launch_local(command, arguments.processes, RunDir(resolved.run.path).logs)


def _slurm(arguments: argparse.Namespace) -> int:
    from electra_dist.rundir import RunDir
    from electra_dist.train.start import check_same_run
    from launcher.slurm import Request, prepare, submit

    if arguments.new_profile:
        return _new_profile()
    if not arguments.config or not arguments.cluster:
        raise UserError("launch slurm needs CONFIG and --cluster NAME; --new-profile makes a profile of this cluster")
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
    launch = prepare(arguments.config, arguments.overrides, request, dry_run=arguments.dry_run)
    for config, dataset in zip(launch.runs, launch.datasets, strict=True):
        check_same_run(RunDir(config.run.path), config, dataset)
    for text in dict.fromkeys(forecast.text() for forecast in launch.forecasts):
        print(text, file=sys.stderr)  # beside the script, which may be redirected into a file
    if launch.inherited.ignored:
        print(f"note: {launch.inherited.ignored}", file=sys.stderr)
    if arguments.dry_run:
        print(launch.script, end="")
        return 0
    submission = submit(launch)
    if arguments.json:
        runs = [str(path) for path in submission.runs]
        plans = [asdict(forecast) for forecast in launch.forecasts]
        print_json({"job_ids": submission.job_ids, "script": str(submission.script), "runs": runs, "plans": plans})
        return 0
    print(f"submitted job {', '.join(submission.job_ids)}: {submission.script}")
    print("\n".join(submission.next_commands))
    return 0


def _new_profile() -> int:
    from launcher.clusters import write_profile
    from launcher.discover import ask_profile

    try:
        name, cluster = ask_profile(lambda question, default: input(f"{question} [{default}]: ").strip() or default)
    except EOFError as error:
        raise UserError("--new-profile: the answers ended early, nothing was saved; run it in a terminal") from error
    path = write_profile(name, cluster)
    print(f"{path}: saved; look it over, then: electra-dist launch slurm CONFIG --cluster {name} --dry-run")
    return 0
