"""Cluster profiles: what a site's Slurm wants to be told, typed, from YAML.

A profile NAME is looked for as a path (when it ends in .yaml), then as `NAME.yaml` in
`$ELECTRA_DIST_CLUSTERS`, in `~/.config/electra-dist/` and among the examples that come with the
package (`slurm/clusters/` in the repository); the first one found is the one. Every string of a
profile reaches the job script quoted: `$` and backquotes mean themselves, and a line break is
refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import AfterValidator, Field, model_validator

from electra_dist.config import Name, NonNegativeInt, PositiveInt, Section, read_yaml
from electra_dist.errors import ConfigError, nearest
from electra_dist.files.shipped import shipped_folder

EXAMPLES = shipped_folder("slurm/clusters")


def one_line(text: str) -> str:
    """`text` itself; raises `ValueError` when it holds a line
    break or another control character.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("line breaks and control characters are not allowed in a job script")
    return text


Line = Annotated[str, AfterValidator(one_line)]
#: A value of an #SBATCH line; the characters that names of partitions,
#: accounts and GPUs are made of.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,:+@/&|=-]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+[KMGT]?$")]
#: Minutes, M:SS, H:MM:SS or D-HH[:MM[:SS]], as Slurm reads them.
TIME_LIMIT = r"^([0-9]+|[0-9]+:[0-5][0-9](:[0-5][0-9])?|[0-9]+-[0-9]{1,2}(:[0-5][0-9]){0,2})$"
TimeLimit = Annotated[str, Field(pattern=TIME_LIMIT)]
#: `NAME` or `PREFIX*`.
Inherit = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\*?$")]
Option = Annotated[str, Field(pattern=r"^--[a-z][a-z0-9-]*(=.*)?$"), AfterValidator(one_line)]


class Container(Section):
    """The image that the tasks run in; the batch script itself runs outside of it."""

    runtime: Literal["apptainer", "pyxis"]
    """`apptainer exec` around every rank, or Pyxis options on srun."""
    image: Line
    """Path of an Apptainer image, or what Pyxis takes for --container-image."""
    mounts: tuple[Line, ...] = ()
    """Paths seen inside, `outside[:inside]`; the run directory,
    the shards and the submission directory are added.
    """
    options: tuple[Option, ...] = ()
    """More options of `apptainer exec`, or --container-... options of srun."""


class Cluster(Section):
    """One site, or one partition of it."""

    description: Line = ""
    """For people."""
    partition: Word | None = None
    """Default: the site's."""
    account: Word | None = None
    """Who pays; `sacctmgr show assoc user=$USER` lists yours. Default: the site's."""
    qos: Word | None = None
    """Quality of service. Default: the site's."""
    constraint: Word | None = None
    """Features that the nodes must have, as the site names them."""
    reservation: Word | None = None
    """Nodes that were set aside for you."""
    exclusive: bool = False
    """Whole nodes, nobody else's jobs on them."""
    sbatch_options: tuple[Option, ...] = ()
    """More #SBATCH lines, each one `--option=value`."""

    gpus_per_node: NonNegativeInt
    """Also the tasks a node; 0 on a cluster without GPUs."""
    tasks_per_node: PositiveInt | None = None
    """Default: gpus_per_node, at least 1."""
    gpu_request: Literal["gres", "gpus-per-node", "none"] = "gres"
    """How GPUs are asked for: --gres=gpu:N, --gpus-per-node=N,
    or not at all (whole nodes come with theirs).
    """
    gpu_type: Word | None = None
    """As the site names it: gpu:TYPE:N."""
    gpu: Word | None = None
    """Kind of GPU for the plan before submission, as `electra-dist plan --gpu` takes it.
    Default: gpu_type.
    """
    network_gbit: PositiveInt | None = None
    """Gbit/s of each GPU to other nodes, for the plan. Default: 200."""
    checkpoint_write_mb_s: PositiveInt = 200
    """MB/s at which all ranks together write a checkpoint, for the plan;
    low on purpose, the preflight measures it.
    """
    cores_per_task: PositiveInt = 8
    """Cores of a rank; OMP_NUM_THREADS is set to them."""
    memory_per_task: Memory | None = None
    """For example 100G; times the tasks it is the node's --mem. Default: the site's own."""
    cpu_bind: Word | None = None
    """srun --cpu-bind, for example cores. Default: the site's own."""
    gpu_bind: Word | None = None
    """srun --gpu-bind, for example closest. Default:
    every task sees the node's GPUs and takes its own by number.
    """
    srun_options: tuple[Option, ...] = ()
    """More options of srun, each one `--option=value`."""

    time_limit: TimeLimit = "24:00:00"
    """Of one job, as Slurm writes it: minutes, H:MM:SS or D-HH:MM:SS.
    A longer run goes on in the next time slot.
    """
    signal_ahead_seconds: Annotated[int, Field(ge=30, le=65535)] = 300
    """Seconds before the time limit at which the ranks are told to save:
    for two steps and a checkpoint.
    """
    straggler_seconds: PositiveInt = 60
    """Seconds from the first rank that has ended to the end of the
    others (closing a W&B run takes some).
    """
    requeue: bool = True
    """Whether jobs may put themselves back into the queue;
    where a site forbids it, use launch slurm --chain.
    """
    exclude_suspects: bool = True
    """After a crash on one node alone, or a hang, ask for other nodes."""
    storage_wait_seconds: NonNegativeInt = 600
    """Seconds to wait before the next start after one that could not write the run's files:
    others may make room.
    """

    preflight: bool = True
    """Measure the nodes at each start, and leave the bad ones out."""
    source: tuple[Line, ...] = ()
    """Files that the batch script sources first, for example /etc/profile.d/modules.sh."""
    modules: tuple[Line, ...] = ()
    """Modules that the batch script loads, in this order."""
    venv: Line | None = None
    """Virtual environment, on a file system that the nodes see."""
    python: Line | None = None
    """Default: that of the venv, python3 in a container,
    else the one that runs `electra-dist launch`.
    """
    container: Container | None = None
    """See below."""
    environment: dict[Variable, Line] = Field(default_factory=dict)
    """Variables of the tasks: NCCL and fabric settings above all."""
    inherit: tuple[Inherit, ...] = ()
    """More variables that a job takes from the shell that submits it: `NAME` or `PREFIX*`."""
    proxy: Line | None = None
    """http(s) proxy of the nodes, for W&B."""

    node_local: Line = "/tmp"  # noqa: S108 -- a folder of its own is made in it
    """Folder on each node's own disk: caches of Triton, Inductor and torch extensions go there."""
    node_local_variable: Variable | None = None
    """Variable that names this folder on the node, for example SLURM_TMPDIR;
    node_local is the fallback.
    """
    shared_paths: tuple[Line, ...] = ()
    """File systems that the nodes see too;
    when given, run directory and shards must lie below one of them.
    """

    @property
    def tasks(self) -> int:
        """Ranks a node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @model_validator(mode="after")
    def _possible(self) -> Cluster:
        if own := [
            name for name in self.environment if name.islower() and not name.endswith("_proxy")
        ]:
            raise ValueError(
                f"environment.{own[0]}: variables in small letters are the job script's own"
            )
        if of_slurm := [
            name for name in self.inherit if name.startswith(("SLURM", "SBATCH", "SRUN", "SALLOC"))
        ]:
            raise ValueError(
                f"inherit: {of_slurm[0]}: what Slurm reads is said by this profile, not by a shell"
            )
        if self.gpus_per_node and self.tasks > self.gpus_per_node:
            raise ValueError(
                f"tasks_per_node = {self.tasks} is more than gpus_per_node = {self.gpus_per_node}:"
                " one task drives one GPU"
            )
        if self.container and self.venv:
            raise ValueError("venv and container are both set: the tasks run in one of them")
        if self.container and self.container.runtime == "pyxis" and self.node_local_variable:
            raise ValueError(
                "node_local_variable and container.runtime = pyxis: its folder is not known when"
                " the container is asked for; set node_local"
            )
        if self.gpu_type and self.gpu_request == "none":
            raise ValueError("gpu_type is set but gpu_request = none asks for no GPU")
        return self


def profile_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where profiles are looked for, in order: what `environment` names comes first."""
    own = environment.get("ELECTRA_DIST_CLUSTERS")
    home = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "electra-dist"
    return [*([Path(own)] if own else []), home, EXAMPLES]


def available(environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Name and file of every profile, the one that wins where a name is there twice."""
    found: dict[str, Path] = {}
    for folder in profile_folders(environment):
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def load_cluster(name: str, environment: Mapping[str, str] = os.environ) -> Cluster:
    """The profile `name`, or the file when `name` ends in .yaml;
    raises `ConfigError` naming what is wrong with it.
    """
    if name.endswith((".yaml", ".yml")):
        return _parse(Path(name))
    profiles = available(environment)
    if name not in profiles:
        raise ConfigError(
            f"`cluster` {name}: no such profile{nearest(name, profiles)}; there are:"
            f" {', '.join(profiles) or 'none'}. Write one with `electra-dist launch slurm"
            " --new-profile`, or give the path of a .yaml file"
        )
    return _parse(profiles[name])


def _parse(path: Path) -> Cluster:
    try:
        return Cluster.model_validate(read_yaml(path))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_sentences(error))) from error


def _sentences(error: pydantic.ValidationError) -> Iterator[str]:
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            section: Any
            if detail["loc"][0] == "container":
                section = Container
            else:
                section = Cluster
            valid = list(section.model_fields)
            yield (
                f"unknown key {key}{nearest(str(detail['loc'][-1]), valid)}; there are:"
                f" {', '.join(valid)}"
            )
        elif detail["type"] == "missing":
            yield f"key {key} is missing"
        else:
            message = detail["msg"].removeprefix("Value error, ")
            yield f"key {key} = {detail['input']!r}: {message}" if key else message


def write_profile(name: str, cluster: Cluster) -> Path:
    """Save a profile among the user's own;
    raises `ConfigError` when the name is taken or no file name.
    """
    try:
        pydantic.TypeAdapter(Name).validate_python(name)
    except pydantic.ValidationError as error:
        raise ConfigError(
            f"profile name {name!r}: use letters, digits, '.', '_' and '-'"
        ) from error
    path = profile_folders()[0] / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another name, or edit it")
    path.parent.mkdir(parents=True, exist_ok=True)
    given = cluster.model_dump(mode="json", exclude_defaults=True)
    hint = (
        "# electra-dist cluster profile; all keys with their meaning: electra_dist docs/slurm.md\n"
    )
    path.write_text(
        hint + yaml.safe_dump(given, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    return path
