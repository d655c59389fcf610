"""The sbatch script of a job, from the template `launcher/slurm/job.sbatch`: #SBATCH lines,
settings, then what all jobs share.

Everything that a user wrote (names, paths, profile values) appears in the first two parts only,
each piece quoted by `shlex.quote` and free of line breaks; the third part refers to it by shell
variables. So no string of a user is ever read as shell code.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra_dist import errors
from electra_dist.errors import ConfigError
from launcher.slurm.clusters import Cluster, one_line

TEMPLATE = Path(__file__).parent / "job.sbatch"
#: What every job runs; the configuration of the job follows.
TRAIN = ("-m", "electra_dist.cli", "train")
#: What checks the nodes before it; the configuration and --bad-nodes FILE follow.
PREFLIGHT = ("-m", "electra_dist.cli", "preflight")
#: Variables that the template exports to the ranks, beside those of the settings.
SCRIPT_VARIABLES = (
    "ELECTRA_DIST_JOB",
    "ELECTRA_DIST_LOGGED",
    "ELECTRA_DIST_MASTER_ADDR",
    "MASTER_PORT",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "TORCH_FR_BUFFER_SIZE",
    "TORCH_FR_DUMP_TEMP_FILE",
    "TORCH_NCCL_DUMP_ON_TIMEOUT",
)
#: Exit statuses that the script tells apart: its settings `exit_NAME`,
#: from EXIT_NAME of `electra_dist.errors`.
STATUSES = ("OK", "USER_ERROR", "BAD_NODES", "HANG", "DIVERGED", "STORAGE", "UNFINISHED")
#: Crashes in a row, without a new checkpoint, that end a run.
MAX_CRASHES = 3
#: Interrupted starts in a row, without a new checkpoint, that end a run.
MAX_SAVES = 10


@dataclass(frozen=True)
class Job:
    """What a job script says.

    name         of the job, as squeue shows it
    number       of the script: jobs/NNN.sbatch, and the prefix of what belongs to it in every run
                 directory
    run_dirs     absolute; one, or one for each task of a job array
    log_dir      absolute; where the batch script itself logs
    submit_dir   absolute; the ranks run there, because paths in the configuration may be relative
    nodes        fewest and most
    node_counts  numbers of nodes in this range that can train the configuration, ascending
    python       interpreter on the nodes
    requeue      whether the script puts the job back into the queue
    program      what a rank runs; the path of the configuration follows
    preflight    what checks the nodes first; empty for no check
    """

    name: str
    number: str
    cluster: Cluster
    run_dirs: tuple[Path, ...]
    log_dir: Path
    submit_dir: Path
    nodes: tuple[int, int]
    node_counts: tuple[int, ...]
    python: str
    time_limit: str
    requeue: bool = True
    torchrun: bool = False
    exclude: str | None = None
    mounts: tuple[str, ...] = ()
    program: tuple[str, ...] = TRAIN
    preflight: tuple[str, ...] = PREFLIGHT

    @property
    def is_array(self) -> bool:
        return len(self.run_dirs) > 1


def quoted(text: str | Path | int, what: str) -> str:
    """`text` as one word of the shell;
    raises `ConfigError` naming `what` when it holds a line break.
    """
    try:
        return shlex.quote(one_line(str(text)))
    except ValueError as error:
        raise ConfigError(f"{what} = {str(text)!r}: {error}") from error


def array(values: Sequence[str], what: str) -> str:
    """A bash array of `values`; what holds a comma is quoted for the eye,
    which takes it for a separator.
    """
    words = [quoted(value, what) for value in values]
    return (
        "("
        + " ".join(f"'{word}'" if "," in word and "'" not in word else word for word in words)
        + ")"
    )


def render(job: Job) -> str:
    """The whole script; raises `ConfigError` for a string that cannot stand in one."""
    template = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "@DIRECTIVES@": "\n".join(directives(job)),
        "@SETTINGS@": "\n".join(f"  {line}" for line in _settings(job)),
    }
    head, marker, rest = template.partition("@DIRECTIVES@")
    middle, second, tail = rest.partition("@SETTINGS@")
    return head + parts[marker] + middle + parts[second] + tail


def directives(job: Job) -> Iterator[str]:
    """The #SBATCH lines."""
    cluster = job.cluster
    (fewest, most) = job.nodes
    yield _directive("--job-name", job.name)
    for option, value in (
        ("--partition", cluster.partition),
        ("--account", cluster.account),
        ("--qos", cluster.qos),
        ("--constraint", cluster.constraint),
        ("--reservation", cluster.reservation),
    ):
        if value:
            yield _directive(option, value)
    yield _directive("--nodes", str(fewest) if fewest == most else f"{fewest}-{most}")
    # with --ntasks-per-node Slurm would only ever give the fewest nodes of a range
    if job.torchrun or fewest < most:
        yield _directive("--cpus-per-task", cluster.cores_per_task * cluster.tasks)
    else:
        yield _directive("--ntasks-per-node", cluster.tasks)
        yield _directive("--cpus-per-task", cluster.cores_per_task)
    if cluster.gpus_per_node and cluster.gpu_request != "none":
        if cluster.gpu_type:
            gpus = f"{cluster.gpu_type}:{cluster.gpus_per_node}"
        else:
            gpus = f"{cluster.gpus_per_node}"
        yield (
            _directive("--gres", f"gpu:{gpus}")
            if cluster.gpu_request == "gres"
            else _directive("--gpus-per-node", gpus)
        )
    if cluster.memory_per_task:
        number = cluster.memory_per_task.rstrip("KMGT")
        yield _directive(
            "--mem", f"{int(number) * cluster.tasks}{cluster.memory_per_task[len(number) :]}"
        )
    if cluster.exclusive:
        yield "#SBATCH --exclusive"
    yield _directive("--time", job.time_limit)
    yield _directive("--signal", f"B:USR1@{cluster.signal_ahead_seconds}")
    yield "#SBATCH --requeue" if job.requeue else "#SBATCH --no-requeue"
    yield "#SBATCH --open-mode=append"
    yield _directive("--output", _log_pattern(job))
    if job.is_array:
        yield _directive("--array", f"0-{len(job.run_dirs) - 1}")
    if job.exclude:
        yield _directive("--exclude", job.exclude)
    for option in cluster.sbatch_options:
        yield _directive(*option.partition("=")[::2])


def _directive(option: str, value: str | int) -> str:
    if value != "":
        return f"#SBATCH {option}={quoted(value, option)}"
    return f"#SBATCH {option}"


def _log_pattern(job: Job) -> str:
    folder = str(job.log_dir)
    if "\\" in folder:
        raise ConfigError(
            f"run.dir: {folder!r} holds a backslash, which Slurm cannot have in the name of a log"
        )
    return folder.replace("%", "%%") + ("/job-%A_%a.log" if job.is_array else "/job-%j.log")


def _settings(job: Job) -> Iterator[str]:
    cluster = job.cluster
    yield from _run_dir(job)
    yield f"number={quoted(job.number, 'number')}"
    yield f"submit_dir={quoted(job.submit_dir, 'the current folder')}"
    yield f"sources={array(cluster.source, 'source')}"
    yield f"modules={array(cluster.modules, 'modules')}"
    yield f"venv={quoted(cluster.venv or '', 'venv')}"
    yield f"prefix={array(_prefix(job), 'container')}"
    yield f"python={quoted(job.python, 'python')}"
    yield f"program={array(job.program, 'program')}"
    yield f"preflight={array(job.preflight, 'preflight')}"
    yield f"srun_options={array(_srun_options(job), 'srun_options')}"
    yield f"torchrun={'yes' if job.torchrun else 'no'}"
    yield f"tasks_per_node={cluster.tasks}"
    yield f"cores_per_task={cluster.cores_per_task}"
    yield f"node_counts='{' '.join(str(count) for count in job.node_counts)}'"
    yield f"min_nodes={job.nodes[0]}"
    yield f"straggler_seconds={cluster.straggler_seconds}"
    yield f"requeue={'yes' if job.requeue else 'no'}"
    yield f"exclude_suspects={'yes' if cluster.exclude_suspects else 'no'}"
    yield f"max_crashes={MAX_CRASHES}"
    yield f"max_saves={MAX_SAVES}"
    yield f"storage_wait_seconds={cluster.storage_wait_seconds}"
    for name in STATUSES:
        yield f"exit_{name.lower()}={getattr(errors, f'EXIT_{name}')}"
    yield f"task_variables={array(task_variables(job), 'environment')}"
    for name, value in _environment(job).items():
        yield f"export {name}={quoted(value, f'environment.{name}')}"


def _run_dir(job: Job) -> Iterator[str]:
    if not job.is_array:
        yield f"run_dir={quoted(job.run_dirs[0], 'run.dir')}"
        return
    yield "case $SLURM_ARRAY_TASK_ID in"
    for index, run_dir in enumerate(job.run_dirs):
        yield f"  {index}) run_dir={quoted(run_dir, 'run.dir')} ;;"
    yield "  *) exit 1 ;;"
    yield "esac"


def _environment(job: Job) -> dict[str, str]:
    cluster = job.cluster
    variables = {
        "OMP_NUM_THREADS": str(cluster.cores_per_task),
        "PYTHONUNBUFFERED": "1",
        "ELECTRA_DIST_NODE_LOCAL": cluster.node_local,
        "ELECTRA_DIST_NODE_LOCAL_VARIABLE": cluster.node_local_variable or "",
    }
    if cluster.container:
        variables["PYTHONNOUSERSITE"] = "1"  # what lies in ~/.local was built for another Python
    if cluster.proxy:
        variables |= dict.fromkeys(
            ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), cluster.proxy
        )
    return variables | cluster.environment


def task_variables(job: Job) -> tuple[str, ...]:
    """Variables that this script sets for the ranks;
    in a container those of the image would win over them.
    """
    return (*_environment(job), *SCRIPT_VARIABLES)


def _srun_options(job: Job) -> list[str]:
    cluster = job.cluster
    container = job.cluster.container
    options = [f"--{name}={value}" for name, value in _bindings(cluster) if value]
    # caches go to the node's disk, seen under its own name
    if container and container.runtime == "pyxis":
        wanted = dict.fromkeys((*job.mounts, cluster.node_local, *container.mounts))
        mounts = [mount if ":" in mount else f"{mount}:{mount}" for mount in wanted]
        options += [
            f"--container-image={container.image}",
            f"--container-mounts={','.join(mounts)}",
        ]
        options += [
            f"--container-workdir={job.submit_dir}",
            f"--container-env={','.join(task_variables(job))}",
        ]
        options += container.options
    return [*options, *cluster.srun_options]


def _bindings(cluster: Cluster) -> list[tuple[str, str | None]]:
    return [("cpu-bind", cluster.cpu_bind), ("gpu-bind", cluster.gpu_bind)]


def _prefix(job: Job) -> list[str]:
    container = job.cluster.container
    if container is None or container.runtime != "apptainer":
        return []
    binds = [f"--bind={mount}" for mount in (*job.mounts, *container.mounts)]
    if job.cluster.gpus_per_node:
        gpu = ["--nv"]
    else:
        gpu = []
    return [
        "apptainer",
        "exec",
        *gpu,
        f"--pwd={job.submit_dir}",
        *binds,
        *container.options,
        container.image,
    ]
