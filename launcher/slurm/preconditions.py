"""What is refused before a job is submitted: impossible sizes, paths the nodes cannot see, a run
that runs already.

Each check raises a `UserError` that says what to do. None of them writes anything.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.config import Config, check_world
from electra_dist.errors import ConfigError, UserError, nearest
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import life
from launcher.records import records
from launcher.slurm import queue
from launcher.slurm.clusters import Cluster, Container, one_line

if TYPE_CHECKING:
    from electra_dist.data.shards.manifest import Manifest

_URL_START = "://"
_SPARE_SECONDS = 60  # Slurm counts in minutes and may signal this much early


def possible_node_counts(
    config: Config, cluster: Cluster, nodes: tuple[int, int]
) -> tuple[int, ...]:
    """Numbers of nodes from `nodes` that can train `config`, ascending; raises `ConfigError` when
    the fewest cannot.

    Slurm may grant the fewest nodes of the range, so these at least must be possible.
    """
    possible = []
    refused = {}
    for count in range(nodes[0], nodes[1] + 1):
        try:
            check_world(config, count * cluster.tasks, cluster.tasks)
            possible.append(count)
        except ConfigError as error:
            refused[count] = error
    if nodes[0] in refused:
        raise ConfigError(
            f"`nodes` {nodes[0]} with {cluster.tasks} ranks a node: {refused[nodes[0]]}"
        )
    return tuple(possible)


def seconds(time_limit: str) -> int | None:
    """Seconds of a Slurm time (`90`, `1:30:00`, `2-00`, `2-12:00`); None for UNLIMITED."""
    if not time_limit or not time_limit[0].isdigit():
        return None
    days, dash, clock = time_limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, rest = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, rest = parts
    else:
        hours = 0
        (minutes, rest) = [*parts, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def check_cluster(cluster: Cluster, nodes: tuple[int, int], time_limit: str) -> None:
    """Compare a request with what `sinfo` reports;
    raises `UserError` when Slurm could never run it.
    """
    _check_time(cluster, time_limit)
    listed = {partition.name: partition for partition in queue.partitions()}
    name = cluster.partition or next((p.name for p in listed.values() if p.is_default), None)
    if name is None:
        raise UserError(
            "this cluster has no default partition: set partition in the profile"
            f" ({', '.join(listed)})"
        )
    if name not in listed:
        raise UserError(
            f"partition {name}: this cluster has none of this name{nearest(name, listed)}; it has:"
            f" {', '.join(listed)}"
        )
    here = listed[name]
    if cluster.gpu_request != "none" and cluster.gpus_per_node > here.gpus:
        raise UserError(
            f"gpus_per_node = {cluster.gpus_per_node}: the nodes of partition {name} have"
            f" {here.gpus}; change it in the profile, or choose another partition"
        )
    if cluster.cores_per_task * cluster.tasks > here.cores:
        raise UserError(
            f"cores_per_task = {cluster.cores_per_task} x {cluster.tasks} tasks a node: the nodes"
            f" of partition {name} have {here.cores} cores; at most {here.cores // cluster.tasks} a"
            " task are possible"
        )
    if nodes[0] > here.nodes:
        raise UserError(f"`nodes` {nodes[0]}: partition {name} has {here.nodes} nodes")
    longest = seconds(here.time_limit)
    wanted = seconds(time_limit)
    if longest is not None and wanted is not None and wanted > longest:
        raise UserError(
            f"time limit {time_limit}: partition {name} allows {here.time_limit}; a longer run goes"
            " on by itself in the next time slot"
        )


def _check_time(cluster: Cluster, time_limit: str) -> None:
    limit = seconds(time_limit)
    if limit is None:
        raise UserError(f"time limit {time_limit!r}: expected minutes, H:MM:SS or D-HH:MM:SS")
    if limit < cluster.signal_ahead_seconds + _SPARE_SECONDS:
        raise UserError(
            f"time limit {time_limit}: the ranks are told to save {cluster.signal_ahead_seconds} s"
            " ahead of it, which leaves no time to train; ask for more time, or lower"
            " signal_ahead_seconds in the profile"
        )


def check_free(run_dirs: Sequence[Path]) -> None:
    """Raise `UserError` when a job of one of these runs is waiting or running,
    or a process outside of Slurm.
    """
    for run_dir in run_dirs:
        seen = life(RunDir(run_dir))
        if seen and seen.running and seen.process.job_id is None:
            raise UserError(
                f"{run_dir}: process {seen.process.pid} on {seen.process.host} trains this run"
                f" already; end it with `electra-dist stop {run_dir}` there, or set another"
                " run.name"
            )
        job_ids = [job_id for record in records(RunDir(run_dir)) for job_id in record.job_ids]
        for job in queue.queued(job_ids):
            if job.is_active:
                raise UserError(
                    f"{run_dir}: job {job.job_id} of this run is {job.state.lower()} already; watch"
                    f" it with `electra-dist status {run_dir}`, end it with `electra-dist stop"
                    f" {run_dir}`, or set another run.name"
                )


def check_paths(
    runs: Sequence[Config],
    run_dirs: Sequence[Path],
    cluster: Cluster,
    submit_dir: Path,
    python: str,
) -> tuple[str, ...]:
    """Check that what the nodes need is visible to them;
    returns the folders that a container must mount.
    """
    folders = [run.data.shards for run in runs if _URL_START not in run.data.shards]
    shards = sorted({(submit_dir / folder).absolute() for folder in folders})
    needed = sorted({*(path.parent for path in run_dirs), *shards, submit_dir})
    for path in needed:
        _check_writable_as_line(path)
        _check_visible(path, cluster)
    _check_program(cluster, python)
    if cluster.container:
        _check_image(cluster.container, submit_dir)
        for mounted in (*needed, cluster.node_local):
            if ":" in str(mounted) or "," in str(mounted):
                raise ConfigError(
                    f"{mounted}: a path that a container mounts cannot hold ':' or ','"
                )
    return tuple(str(path) for path in needed)


def check_shards(run: Config, submit_dir: Path) -> Manifest:
    """The manifest of a run's shards, whose files are all there in their sizes;
    raises `DataError` or `ConfigError`.
    """
    from electra_dist.data.shards.manifest import (
        Manifest,
        check_vocabulary,  # numpy: not for those who only ask the queue
    )
    from electra_dist.data.shards.stores.remote import is_remote

    if is_remote(run.data.shards):
        manifest = Manifest.of_run(run)
    else:
        manifest = Manifest.load((submit_dir / run.data.shards).absolute())
    check_vocabulary(run, manifest)
    manifest.check_files("sizes")
    return manifest


def _check_writable_as_line(path: Path) -> None:
    try:
        one_line(str(path))
    except ValueError as error:
        raise ConfigError(f"path {str(path)!r}: {error}") from error


def _check_visible(path: Path, cluster: Cluster) -> None:
    shared = [Path(folder) for folder in cluster.shared_paths]
    if shared and not any(path.is_relative_to(folder) for folder in shared):
        raise ConfigError(
            f"{path}: the compute nodes do not see it; they see {', '.join(cluster.shared_paths)}"
            " (shared_paths in the cluster profile). Move it there, or submit from there"
        )


def _check_program(cluster: Cluster, python: str) -> None:
    if cluster.container:  # it is inside
        return
    if "/" in python:
        found = os.access(python, os.X_OK)
    else:
        found = bool(cluster.modules) or shutil.which(python) is not None
    if not found:
        if cluster.venv and not cluster.python:
            source = "venv"
        else:
            source = "python"
        raise ConfigError(
            f"{source} of the cluster profile: {python} is not there or cannot be run; make the"
            " environment with `make install`, or correct the profile"
        )


def _check_image(container: Container, submit_dir: Path) -> None:
    """An image that is a file must be there; what is fetched from a registry is taken as it is."""
    image = container.image
    if container.runtime == "apptainer":
        is_file = "://" not in image
    else:
        is_file = image.startswith(("/", "./"))
    if is_file and not (submit_dir / image).exists():
        raise ConfigError(
            f"container.image = {image}: no such file; build it, or correct the profile"
        )
