"""`launch slurm`: checks everything that can be checked on a login node, writes the job script,
submits it.

    prepare(...)  ->  Launch     nothing is written, nothing is submitted; `Launch.script` is what
                  --dry-run prints
    submit(launch)  ->  Submission

A sweep is one job array, one run a combination: run.dir/NAME/key-value for every value of every
swept key.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.errors import ConfigError, UserError
from electra_dist.files.writing import write_atomically
from electra_dist.runs.directory import RunDir
from launcher.records import JobRecord, next_number, snapshot_code
from launcher.slurm import queue
from launcher.slurm.clusters import TIME_LIMIT, Cluster, load_cluster
from launcher.slurm.environment import Inherited, for_job
from launcher.slurm.forecast import Data, Disk, Forecast, Slots, forecast, refuse
from launcher.slurm.job_script import PREFLIGHT, TRAIN, Job, render
from launcher.slurm.preconditions import (
    check_cluster,
    check_free,
    check_paths,
    check_shards,
    possible_node_counts,
    seconds,
)

if TYPE_CHECKING:
    from electra_dist.data.sources import RunData

_NODES = re.compile(r"^([1-9]\d*)(?:-([1-9]\d*))?$")
_NODE_LIST = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.,\[\]-]*$")
_JOB_ID = re.compile(r"^\d+(_\d+)?$")


@dataclass(frozen=True)
class Request:
    """What the user asked for beside the configuration, as written on the command line.

    cluster     name of a profile, or the path of one
    nodes       "4", or "1-4": as many of these as the job can get
    time_limit  in place of the profile's
    chain       jobs one after the other, each going on where the one before stopped
    sweep       "key.sub=v1,v2": one run for each value
    exclude     node list
    after       job to wait for, however it ends
    torchrun    start the ranks by torchrun, one agent a node
    ignore_plan  submit what the plan says cannot work
    program     what a rank runs before the path of the configuration (tests put a stand-in here)
    preflight   the same for what checks the nodes; the profile can turn it off
    """

    cluster: str
    nodes: str = "1"
    time_limit: str | None = None
    chain: int = 1
    sweep: tuple[str, ...] = ()
    exclude: str | None = None
    after: str | None = None
    torchrun: bool = False
    ignore_plan: bool = False
    program: tuple[str, ...] = TRAIN
    preflight: tuple[str, ...] = PREFLIGHT


@dataclass(frozen=True)
class Launch:
    """A checked launch: the runs that it starts, their plans, the job, its script.

    inherited   what the job gets of this shell's environment, and what of it is left out
    """

    request: Request
    job: Job
    runs: tuple[Config, ...]
    forecasts: tuple[Forecast, ...]
    script_path: Path
    script: str
    inherited: Inherited


@dataclass(frozen=True)
class Submission:
    """What was submitted: the ids of the jobs (several for a chain) and where they write."""

    job_ids: tuple[str, ...]
    script: Path
    runs: tuple[Path, ...]

    @property
    def next_commands(self) -> list[str]:
        """What to type now."""
        run = self.runs[0]
        return [
            f"electra-dist status {run}",
            f"electra-dist logs {run} --follow",
            f"electra-dist stop {run}",
        ]


def prepare(
    config: Path | str,
    overrides: Sequence[str],
    request: Request,
    *,
    dry_run: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Launch:
    """Resolve and check everything; raises `UserError` or `ConfigError` with what to do. Touches
    nothing.

    With `dry_run` a machine without Slurm is no error; what only Slurm can tell is then not
    checked. `environment` says where profiles lie, and the job inherits a part of it.
    """
    cluster = load_cluster(request.cluster, environment)
    nodes = _node_range(request)
    runs = _runs(config, overrides, request)
    counts = possible_node_counts(runs[0], cluster, nodes)
    submit_dir = Path.cwd()
    run_dirs = tuple((submit_dir / run.run.path).absolute() for run in runs)
    if len(runs) == 1:
        home = run_dirs[0]
    else:
        home = run_dirs[0].parent
    time_limit = request.time_limit or cluster.time_limit
    python = _python(cluster)
    mounts = check_paths(runs, run_dirs, cluster, submit_dir, python)
    data = [check_shards(run, submit_dir) for run in runs]
    slots = Slots(seconds(time_limit), request.chain, cluster.requeue)
    forecasts = tuple(
        forecast(run, _data(of_run), cluster, counts, slots, *_state(run_dir, len(runs)))
        for run, of_run, run_dir in zip(runs, data, run_dirs, strict=True)
    )
    if not request.ignore_plan:
        refuse(forecasts)
    if queue.has_slurm() or not dry_run:
        check_cluster(cluster, nodes, time_limit)
        check_free(run_dirs)
    job = Job(
        name=home.name,
        number=next_number({*run_dirs, home}),
        cluster=cluster,
        run_dirs=run_dirs,
        log_dir=home / "logs",
        submit_dir=submit_dir,
        nodes=nodes,
        node_counts=counts,
        python=python,
        time_limit=time_limit,
        requeue=cluster.requeue and request.chain == 1,
        torchrun=request.torchrun,
        exclude=request.exclude,
        mounts=mounts,
        program=request.program,
        preflight=_preflight(request, cluster),
    )
    script_path = home / "jobs" / f"{job.number}.sbatch"
    inherited = for_job(environment, cluster.inherit)
    return Launch(request, job, runs, forecasts, script_path, render(job), inherited)


def _data(data: RunData) -> Data:
    return Data(data.vocab_size, data.mean_document)


def _state(run_dir: Path, runs: int) -> tuple[int, Disk]:
    """Steps that are done, and the disk: `runs` of a sweep share what is free."""
    checkpoints = RunDir(run_dir).complete_checkpoints()
    place = next(folder for folder in (run_dir, *run_dir.parents) if folder.exists())
    return max(checkpoints, default=0), Disk(
        shutil.disk_usage(place).free // runs, len(checkpoints)
    )


def _preflight(request: Request, cluster: Cluster) -> tuple[str, ...]:
    if not (request.preflight and cluster.preflight):
        return ()
    if request.ignore_plan:
        return (*request.preflight, "--ignore-room")
    return request.preflight


def _node_range(request: Request) -> tuple[int, int]:
    match = _NODES.match(request.nodes)
    if match:
        fewest, most = (int(match[1]), int(match[2] or match[1]))
    else:
        fewest, most = (0, 0)
    if not match or most < fewest:
        raise ConfigError(f"`nodes` {request.nodes}: expected a number, or a range like 1-4")
    if request.chain < 1:
        raise ConfigError(f"`chain` {request.chain}: expected at least 1")
    if request.chain > 1 and request.sweep:
        raise ConfigError("`chain` and `array` together: start one chain for each run instead")
    if request.exclude and not _NODE_LIST.match(request.exclude):
        raise ConfigError(
            f"`exclude` {request.exclude!r}: expected node names, for example n1,gpu[03-05]"
        )
    if request.after and not _JOB_ID.match(request.after):
        raise ConfigError(f"`after` {request.after!r}: expected the id of a job, for example 4711")
    if request.time_limit and not re.fullmatch(TIME_LIMIT, request.time_limit):
        raise ConfigError(f"`time` {request.time_limit!r}: expected minutes, H:MM:SS or D-HH:MM:SS")
    return fewest, most


def _runs(config: Path | str, overrides: Sequence[str], request: Request) -> tuple[Config, ...]:
    """The configuration of every run; one without a sweep."""
    base = configuration.load(config, overrides)
    if not request.sweep:
        return (base,)
    axes = [_axis(text) for text in request.sweep]
    runs = []
    for combination in itertools.product(*axes):
        name = re.sub(
            r"[^A-Za-z0-9._-]",
            "-",
            "_".join(f"{key.split('.')[-1]}-{value}" for key, value in combination),
        )
        own = [f"{key}={value}" for key, value in combination]
        # JSON is YAML
        place = [
            f"run.dir={json.dumps(str(base.run.path))}",
            f"run.name={json.dumps(name)}",
            f"tracking.group={json.dumps(base.tracking.group or base.run.name)}",
        ]
        runs.append(configuration.load(config, [*overrides, *own, *place]))
    names = [run.run.name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"`array` {' '.join(request.sweep)}: two runs would have the same name; give each value"
            " once"
        )
    return tuple(runs)


def _axis(text: str) -> list[tuple[str, str]]:
    key, equals, values = text.partition("=")
    listed = [value.strip() for value in values.split(",") if value.strip()]
    if not equals or not listed:
        raise ConfigError(
            f"`array` {text!r}: expected key.sub=value,value, for example optim.lr=1e-3,5e-4"
        )
    if key.startswith("run."):
        raise ConfigError(f"`array` {text!r}: run.* names the runs of a sweep and cannot be swept")
    return [(key, value) for value in listed]


def _python(cluster: Cluster) -> str:
    if cluster.python:
        return cluster.python
    if cluster.container:
        return "python3"
    if cluster.venv:
        return f"{cluster.venv.rstrip('/')}/bin/python"
    return sys.executable


def submit(launch: Launch) -> Submission:
    """Write script, configuration and code into the run directories and submit; raises `UserError`
    when Slurm refuses.

    What was written for a job that Slurm refuses is taken away again.
    """
    job = launch.job
    request = launch.request
    written: list[Path] = []
    try:
        for run_dir, run in zip(job.run_dirs, launch.runs, strict=True):
            written += _write_run(RunDir(run_dir), run, job.number)
        for folder in (launch.script_path.parent, job.log_dir):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(launch.script_path, launch.script)
        written.append(launch.script_path)
        job_ids = _submit_chain(launch, request)
    except UserError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    for index, run_dir in enumerate(job.run_dirs):
        if job.is_array:
            own = tuple(f"{job_id}_{index}" for job_id in job_ids)
        else:
            own = job_ids
        _record(job, request, own).save(RunDir(run_dir))
    return Submission(job_ids, launch.script_path, job.run_dirs)


def _write_run(run: RunDir, config: Config, number: str) -> list[Path]:
    for folder in (run.jobs, run.logs):
        folder.mkdir(parents=True, exist_ok=True)
    snapshot_code(run.path / "code" / number)
    path = run.jobs / f"{number}.yaml"
    write_atomically(path, configuration.resolved_yaml(config))
    return [path]


def _submit_chain(launch: Launch, request: Request) -> tuple[str, ...]:
    job_ids: list[str] = []
    if request.after:
        options = [f"--dependency=afterany:{request.after}"]
    else:
        options = []
    try:
        for _ in range(request.chain):
            job_ids.append(queue.submit(launch.script_path, launch.inherited.variables, options))
            # a job that has finished the run ends with 0,
            # and those behind it are not wanted any more
            options = [f"--dependency=afternotok:{job_ids[-1]}", "--kill-on-invalid-dep=yes"]
    except UserError:
        queue.cancel(job_ids)
        raise
    return tuple(job_ids)


def _record(job: Job, request: Request, job_ids: tuple[str, ...]) -> JobRecord:
    return JobRecord(
        number=job.number,
        job_ids=job_ids,
        cluster=request.cluster,
        nodes=job.nodes,
        ranks_per_node=job.cluster.tasks,
        time_limit=job.time_limit,
        submitted=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
