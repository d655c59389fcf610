"""Who am I among the ranks: torchrun, Slurm or alone.

Comes in: the environment. Goes out: a `World`, which every collective takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from electra_dist.errors import ConfigError

_CPU = torch.device("cpu")
DeviceSetting = Literal["auto", "cuda", "cpu"]
Launcher = Literal["torchrun", "slurm", "alone"]
#: Set by the launcher where the name of the first node does not resolve.
MASTER_ADDRESS_VARIABLE = "ELECTRA_DIST_MASTER_ADDR"
_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM_VARIABLES = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID")


@dataclass(frozen=True)
class World:
    """One process among the ranks of a run.

    rank, world_size         over all nodes
    local_rank               on this node
    device                   this rank's own
    launcher                 who started the processes
    master_address, _port    where the ranks meet; None when there is only one
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = _CPU
    launcher: Launcher = "alone"
    master_address: str | None = None
    master_port: int | None = None

    @property
    def is_main(self) -> bool:
        """Rank 0, which alone prints and writes the run's own files."""
        return self.rank == 0


def detect(env: Mapping[str, str], device: DeviceSetting = "auto", cuda_devices: int = 0) -> World:
    """This process's place, from torchrun's variables, else those of a Slurm step, else alone.

    `device` is `train.device`, `cuda_devices` the number of GPUs that this process sees. The shell
    of an `sbatch` script or of `salloc` carries Slurm's variables too but is no step: it is alone.
    Raises `ConfigError` when the variables are incomplete, contradict each other, or name no node
    to meet at, and when the device is not there.
    """
    if "RANK" in env or "WORLD_SIZE" in env:
        world = _from_torchrun(env)
    elif env.get("SLURM_STEP_ID", "").isdigit() and "SLURM_PROCID" in env:
        world = _from_slurm(env)
    else:
        world = World()
    if not 0 <= world.rank < world.world_size:
        raise ConfigError(
            f"environment: rank {world.rank} does not lie in a world of {world.world_size}"
        )
    return replace(world, device=choose_device(device, world.local_rank, cuda_devices))


def _from_torchrun(env: Mapping[str, str]) -> World:
    missing = [name for name in _TORCHRUN_VARIABLES if not env.get(name)]
    if missing:
        raise ConfigError(
            f"environment: {', '.join(missing)} missing while other variables of torchrun are set;"
            f" torchrun sets all of {', '.join(_TORCHRUN_VARIABLES)}: start with torchrun or srun,"
            " or unset them to run alone"
        )
    return World(
        rank=_integer(env, "RANK"),
        world_size=_integer(env, "WORLD_SIZE"),
        local_rank=_integer(env, "LOCAL_RANK"),
        launcher="torchrun",
        master_address=env["MASTER_ADDR"],
        master_port=_integer(env, "MASTER_PORT"),
    )


def _from_slurm(env: Mapping[str, str]) -> World:
    if "SLURM_STEP_NUM_TASKS" in env:
        tasks = "SLURM_STEP_NUM_TASKS"
    else:
        tasks = "SLURM_NTASKS"
    missing = [name for name in (*_SLURM_VARIABLES, tasks) if not env.get(name)]
    if missing:
        raise ConfigError(
            f"environment: {', '.join(missing)} missing in a Slurm step; start the ranks with plain"
            " `srun`"
        )
    world_size = _integer(env, tasks)
    if world_size == 1:
        return World()
    job = _integer(env, "SLURM_JOB_ID")
    step = _integer(env, "SLURM_STEP_ID")
    return World(
        rank=_integer(env, "SLURM_PROCID"),
        world_size=world_size,
        local_rank=_integer(env, "SLURM_LOCALID"),
        launcher="slurm",
        master_address=_slurm_master_address(env),
        master_port=_integer(env, "MASTER_PORT")
        if env.get("MASTER_PORT")
        else 20000 + (job * 16 + step) % 12000,
    )


def note_alone(world: World, env: Mapping[str, str]) -> str | None:
    """What to tell a user who trains with one process inside of a larger Slurm job;
    None where that is no surprise.
    """
    if world.launcher != "alone" or not env.get("SLURM_JOB_ID"):
        return None
    tasks = env.get("SLURM_NTASKS") or "1"
    nodes = env.get("SLURM_JOB_NUM_NODES") or "1"
    if tasks == "1" and nodes == "1":
        return None
    return (
        f"this process trains alone, in Slurm job {env['SLURM_JOB_ID']} of {nodes} nodes (tasks:"
        f" {tasks}); `srun electra-dist train ...` starts one rank a task, `electra-dist launch"
        " local` several on this node"
    )


def _slurm_master_address(env: Mapping[str, str]) -> str:
    if env.get(MASTER_ADDRESS_VARIABLE):
        return env[MASTER_ADDRESS_VARIABLE]
    if (env.get("SLURM_STEP_NUM_NODES") or env.get("SLURM_NNODES")) == "1":
        return "127.0.0.1"
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST")
    if not nodes:
        # A fallback to localhost would make every node a world of its own.
        raise ConfigError(
            "environment: several Slurm nodes but no SLURM_JOB_NODELIST, so the ranks do not know"
            f" where to meet; export {MASTER_ADDRESS_VARIABLE}=<address of the first node> in the"
            " job script"
        )
    return first_host(nodes)


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: `gpu[003-005,9],x1` gives `gpu003`."""
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes)
    if not first:
        raise ConfigError(
            f"environment: cannot read the Slurm node list {nodes!r}; export"
            f" {MASTER_ADDRESS_VARIABLE}"
        )
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", first[0])


def _integer(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError as error:
        raise ConfigError(f"environment: {name} = {env[name]!r}: expected an integer") from error


def choose_device(setting: DeviceSetting, local_rank: int, cuda_devices: int) -> torch.device:
    """The device of a rank that sees `cuda_devices` GPUs; raises `ConfigError` when it asks for one
    that is not there.

    A task that Slurm bound to its own GPU sees only that one, whatever its local rank.
    """
    if setting == "cpu" or (setting == "auto" and cuda_devices == 0):
        return torch.device("cpu")
    if cuda_devices == 0:
        raise ConfigError(
            "train.device = cuda: PyTorch sees no GPU; use train.device=auto, or check the"
            " allocation"
        )
    if cuda_devices > 1 and local_rank >= cuda_devices:
        raise ConfigError(
            f"local rank {local_rank} has no GPU: this node shows {cuda_devices}; start at most"
            " that many ranks a node"
        )
    return torch.device("cuda", local_rank if cuda_devices > 1 else 0)
