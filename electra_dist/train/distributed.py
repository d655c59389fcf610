"""Who am I among the ranks, and how the ranks agree: torchrun, Slurm or alone, one process group, collective errors.

Comes in: the environment. Goes out: a `World`, which every collective below takes. An error of one rank is every
rank's error (`together`): all of them raise it within seconds, and none waits for a rank that is gone.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import re
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from electra_dist import errors, signs
from electra_dist.errors import ConfigError, PeerFailedError, UserError
from electra_dist.train import gpus
from electra_dist.train.allocator import tune_allocator
from electra_dist.train.meeting import Meeting, host_name, meet, raise_open_files
from electra_dist.train.progress import say

_CPU = torch.device("cpu")
DeviceSetting = Literal["auto", "cuda", "cpu"]
UserErrorType = TypeVar("UserErrorType", bound=UserError)
Launcher = Literal["torchrun", "slurm", "alone"]
#: Set by the launcher where the name of the first node does not resolve.
MASTER_ADDRESS_VARIABLE = "ELECTRA_DIST_MASTER_ADDR"
_RESOLVE_TRIES = 3
#: For NCCL to abort, and for the exit functions of other libraries (W&B's) to run.
_ABORT_SECONDS, _LEAVE_SECONDS = 10.0, 60.0
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


# --- who am I --------------------------------------------------------------------------------------------------------


def detect(env: Mapping[str, str], device: DeviceSetting = "auto", cuda_devices: int = 0) -> World:
    """This process's place, from torchrun's variables, else those of a Slurm step, else alone.

    `device` is `train.device`, `cuda_devices` the number of GPUs that this process sees. The shell of an `sbatch`
    script or of `salloc` carries Slurm's variables too but is no step: it is alone. Raises `ConfigError` when the
    variables are incomplete, contradict each other, or name no node to meet at, and when the device is not there.
    """
    if "RANK" in env or "WORLD_SIZE" in env:
        world = _from_torchrun(env)
    elif env.get("SLURM_STEP_ID", "").isdigit() and "SLURM_PROCID" in env:
        world = _from_slurm(env)
    else:
        world = World()
    if not 0 <= world.rank < world.world_size:
        raise ConfigError(f"environment: rank {world.rank} does not lie in a world of {world.world_size}")
    return replace(world, device=choose_device(device, world.local_rank, cuda_devices))


def _from_torchrun(env: Mapping[str, str]) -> World:
    missing = [name for name in _TORCHRUN_VARIABLES if not env.get(name)]
    if missing:
        raise ConfigError(
            f"environment: {', '.join(missing)} missing while other variables of torchrun are set; torchrun sets"
            f" all of {', '.join(_TORCHRUN_VARIABLES)}: start with torchrun or srun, or unset them to run alone"
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
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    missing = [name for name in (*_SLURM_VARIABLES, tasks) if not env.get(name)]
    if missing:
        raise ConfigError(
            f"environment: {', '.join(missing)} missing in a Slurm step; start the ranks with plain `srun`"
        )
    world_size = _integer(env, tasks)
    if world_size == 1:
        return World()
    job, step = _integer(env, "SLURM_JOB_ID"), _integer(env, "SLURM_STEP_ID")
    return World(
        rank=_integer(env, "SLURM_PROCID"),
        world_size=world_size,
        local_rank=_integer(env, "SLURM_LOCALID"),
        launcher="slurm",
        master_address=_slurm_master_address(env),
        master_port=_integer(env, "MASTER_PORT") if env.get("MASTER_PORT") else 20000 + (job * 16 + step) % 12000,
    )


def note_alone(world: World, env: Mapping[str, str]) -> str | None:
    """What to tell a user who trains with one process inside of a larger Slurm job; None where that is no surprise."""
    if world.launcher != "alone" or not env.get("SLURM_JOB_ID"):
        return None
    tasks, nodes = env.get("SLURM_NTASKS") or "1", env.get("SLURM_JOB_NUM_NODES") or "1"
    if tasks == "1" and nodes == "1":
        return None
    return (
        f"this process trains alone, in Slurm job {env['SLURM_JOB_ID']} of {nodes} nodes (tasks: {tasks}); `srun"
        " electra-dist train ...` starts one rank a task, `electra-dist launch local` several on this node"
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
            "environment: several Slurm nodes but no SLURM_JOB_NODELIST, so the ranks do not know where to meet;"
            f" export {MASTER_ADDRESS_VARIABLE}=<address of the first node> in the job script"
        )
    return first_host(nodes)


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: `gpu[003-005,9],x1` gives `gpu003`."""
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes)
    if not first:
        raise ConfigError(f"environment: cannot read the Slurm node list {nodes!r}; export {MASTER_ADDRESS_VARIABLE}")
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", first[0])


def _integer(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError as error:
        raise ConfigError(f"environment: {name} = {env[name]!r}: expected an integer") from error


def choose_device(setting: DeviceSetting, local_rank: int, cuda_devices: int) -> torch.device:
    """The device of a rank that sees `cuda_devices` GPUs; raises `ConfigError` when it asks for one that is not there.

    A task that Slurm bound to its own GPU sees only that one, whatever its local rank.
    """
    if setting == "cpu" or (setting == "auto" and cuda_devices == 0):
        return torch.device("cpu")
    if cuda_devices == 0:
        raise ConfigError("train.device = cuda: PyTorch sees no GPU; use train.device=auto, or check the allocation")
    if cuda_devices > 1 and local_rank >= cuda_devices:
        raise ConfigError(
            f"local rank {local_rank} has no GPU: this node shows {cuda_devices}; start at most that many ranks a node"
        )
    return torch.device("cuda", local_rank if cuda_devices > 1 else 0)


# --- the process group -----------------------------------------------------------------------------------------------


def check_meeting_point(world: World) -> None:
    """Raise `UserError` when the name of the first node means nothing here; torch would try it for minutes."""
    if world.master_address is None:
        return
    for attempt in range(_RESOLVE_TRIES):
        try:
            socket.getaddrinfo(world.master_address, world.master_port)
            return
        except socket.gaierror as error:
            if attempt + 1 == _RESOLVE_TRIES:
                raise UserError(
                    f"the first node's name {world.master_address} does not resolve on {socket.gethostname()}"
                    f" ({error.strerror}); export {MASTER_ADDRESS_VARIABLE}=<its address>, or submit with"
                    " `electra-dist launch slurm`, which asks Slurm for it"
                ) from error
            time.sleep(1)  # a name server may have been too busy


def initialise(
    world: World,
    timeout: timedelta = timedelta(minutes=30),
    meeting: Meeting | None = None,
    meet_seconds: float = 180.0,
) -> None:
    """Open the process group and hand it to DeepSpeed: nccl between GPUs, gloo between CPUs.

    Several ranks on GPUs have both: what the ranks agree on (stop? save? an error?) travels between their hosts, so
    that no rank waits for its GPU to agree. `meeting` is where the ranks have met (`open_meeting`); without one they
    meet here. Collectives fail after `timeout`. Raises `UserError` where the ranks do not reach each other.
    """
    device = world.device
    os.environ["DS_ACCELERATOR"] = device.type
    tune_allocator(device)
    os.environ["LOCAL_RANK"] = str(device.index or 0)  # DeepSpeed's device index, whoever started the processes
    _quieten()
    backend = "gloo" if device.type == "cpu" else "nccl"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world.world_size == 1:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
    else:
        _open_group(world, meeting or _open_and_close_meeting(world, meet_seconds), meet_seconds)
        set_timeout(timeout)
        check_gpus(world)
    signs.enter("start")
    import deepspeed

    # DeepSpeed would compile a shared-memory collective on CPU (minutes, a compiler, a lock that a killed run leaves
    # behind) that only its inference code calls.
    backend_module: Any = importlib.import_module("deepspeed.comm.torch")
    backend_module.build_shm_op = lambda: None
    # Its bf16 optimizer prints the memory in use at every step of its construction.
    bf16_module: Any = importlib.import_module("deepspeed.runtime.bf16_optimizer")
    bf16_module.see_memory_usage = lambda *_, **__: None
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)


def check_gpus(world: World) -> None:
    """Raise `ConfigError` on all ranks when two of them have the same GPU."""
    if world.device.type == "cuda":
        places = gather_objects([host_name(), gpus.identity(world.device)], world)
        gpus.check_one_each([(host, gpu) for host, gpu in places], os.environ.get("CUDA_VISIBLE_DEVICES"))


def open_meeting(world: World, seconds: float = 180.0, stop: Callable[[], bool] = lambda: False) -> Meeting | None:
    """Wait for all ranks, `seconds` at most, as long as `stop` does not end it; None where there is only one.

    Raises `UserError` naming who is missing, `MeetingInterruptedError` when `stop` says so.
    """
    if world.world_size == 1:
        return None
    raise_open_files()
    check_meeting_point(world)
    return meet(world, seconds, say, stop)


def _open_and_close_meeting(world: World, seconds: float) -> Meeting:
    meeting = open_meeting(world, seconds)
    assert meeting is not None
    if meeting.hub is not None:
        meeting.hub.close()  # no watchdog
    return meeting


def set_timeout(timeout: timedelta) -> None:
    """Have the collectives of every group fail after `timeout`, of those that DeepSpeed has made for itself too."""
    for group in list(dist.distributed_c10d._world.pg_map):
        dist.distributed_c10d._set_pg_timeout(timeout, group)


def backends(world: World) -> str:
    """What `init_process_group` is told: gloo between CPUs, nccl between GPUs, and gloo between their hosts."""
    if world.device.type == "cpu":
        return "gloo"
    return "nccl" if world.world_size == 1 else "cpu:gloo,cuda:nccl"


def _open_group(world: World, meeting: Meeting, seconds: float) -> None:
    place = f"{world.master_address}:{world.master_port}"
    os.environ.update(MASTER_ADDR=str(world.master_address), MASTER_PORT=str(world.master_port))
    try:
        dist.init_process_group(
            backends(world),
            store=meeting.store,
            rank=world.rank,
            world_size=world.world_size,
            timeout=timedelta(seconds=seconds),
        )
    except RuntimeError as error:  # torch.distributed's errors are of this class
        cause = str(error).partition("\n")[0]
        raise UserError(
            f"the {world.world_size} ranks met at {place}, but do not reach each other: {cause}. On several nodes set"
            " GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME) to the network interface between them"
        ) from error


def _quieten() -> None:
    """Silence what DeepSpeed and torch print about themselves on every rank and every step."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed|deepspeed")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"deepspeed")


def shutdown() -> None:
    """Close the process group, if there is one; all ranks call it, at the end of what they did together."""
    if dist.is_initialized():
        dist.destroy_process_group()


def abort() -> None:
    """Let go of the process group without waiting for the other ranks: this one has failed.

    `destroy_process_group` would wait for collectives that the others never join. NCCL's own abort has been seen to
    hang, so it gets a few seconds; the process ends afterwards anyway.
    """
    if dist.is_initialized():
        thread = threading.Thread(target=_abort, name="electra-dist-abort", daemon=True)
        thread.start()
        thread.join(_ABORT_SECONDS)


def _abort() -> None:
    with suppress(Exception):  # the process is about to end, whatever state the group is in
        dist.distributed_c10d._abort_process_group()


def leave(status: int) -> NoReturn:
    """End this process with `status`, without taking the interpreter down.

    DeepSpeed keeps the process group alive, and with it gloo's threads. One that lets go of its last tensor while the
    interpreter goes down wants the lock of a dead interpreter and aborts the process (SIGABRT, "terminate called
    without an active exception"): a finished run would count as a crash. Exit functions run, for a bounded time;
    output is flushed.
    """
    bound = threading.Timer(_LEAVE_SECONDS, os._exit, (status,))
    bound.daemon = True
    bound.start()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


# --- collectives -----------------------------------------------------------------------------------------------------
#
# All but `all_reduce_sum` are between hosts: their tensors lie on the CPU, whatever the device of the ranks.


def gather_objects(content: Any, world: World) -> list[Any]:
    """`content` of every rank, in rank order, on every rank; travels as JSON."""
    if world.world_size == 1:
        return [content]
    raw = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world.world_size)]
    dist.all_gather(lengths, torch.tensor([raw.numel()]))
    longest = int(max(int(length) for length in lengths))
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: raw.numel()] = raw
    parts = [torch.empty_like(padded) for _ in range(world.world_size)]
    dist.all_gather(parts, padded)
    return [json.loads(bytes(part[: int(length)].numpy())) for part, length in zip(parts, lengths, strict=True)]


def broadcast_object(content: Any, world: World) -> Any:
    """`content` of rank 0, on every rank; travels as JSON."""
    if world.world_size == 1:
        return content
    raw = torch.frombuffer(bytearray(json.dumps(content if world.is_main else None).encode()), dtype=torch.uint8)
    length = torch.tensor([raw.numel()])
    dist.broadcast(length, 0)
    buffer = raw if world.is_main else torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(buffer, 0)
    return json.loads(bytes(buffer.numpy()))


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum of `tensor` over the ranks, in place; `tensor` lies on the rank's device."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(value: int, world: World) -> int:
    """The largest `value` of all ranks; waits for the other hosts, not for the device."""
    if world.world_size == 1:
        return value
    largest = torch.tensor([value])
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())


def any_rank(flag: bool, world: World) -> bool:
    """True on every rank when it is true on any; waits for the other hosts, not for the device."""
    return bool(all_reduce_max(int(flag), world))


def barrier(world: World) -> None:
    """Wait until every rank is here."""
    any_rank(False, world)


# --- errors ----------------------------------------------------------------------------------------------------------


def raise_together(error: Exception | None, world: World) -> None:
    """Raise on every rank when any rank brings an error; every rank must call this.

    A `UserError` is raised on all ranks in its own class, the messages of all ranks joined. Any other exception goes
    on in the rank that has it; the others raise a `PeerFailedError` that names it.
    """
    mine = None if error is None else [type(error).__name__, str(error), isinstance(error, UserError)]
    found = [(rank, *entry) for rank, entry in enumerate(gather_objects(mine, world)) if entry]
    if not found:
        return
    if error is not None and not isinstance(error, UserError):
        raise error
    bugs = [f"rank {rank}: {kind}: {message}" for rank, kind, message, is_user in found if not is_user]
    if bugs:
        raise PeerFailedError("; ".join(bugs[:4])) from error
    messages = list(dict.fromkeys(message for _, _, message, _ in found))
    kind = getattr(errors, found[0][1], UserError)
    more = f" (and {len(messages) - 4} more)" if len(messages) > 4 else ""
    raise on_every_rank(kind("; ".join(messages[:4]) + more)) from error


def on_every_rank(error: UserErrorType) -> UserErrorType:
    """Mark an error that all ranks raise, so that rank 0 alone prints it."""
    error.everywhere = True
    return error


@contextmanager
def together(world: World) -> Iterator[None]:
    """A block after which all ranks go on or all raise (`raise_together`); it must hold no collective of its own."""
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    raise_together(error, world)
