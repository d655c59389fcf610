"""The process group: where the ranks meet, opened and closed.

Comes in: a `World`. Goes out: an open process group, nccl between GPUs and gloo between their
hosts.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from electra_dist.console import say
from electra_dist.errors import UserError
from electra_dist.parallel import gpus, signs
from electra_dist.parallel.allocator import tune_allocator
from electra_dist.parallel.collectives import gather_objects
from electra_dist.parallel.meeting import Meeting, host_name, meet, raise_open_files
from electra_dist.parallel.world import MASTER_ADDRESS_VARIABLE, World

_RESOLVE_TRIES = 3
#: For NCCL to abort, and for the exit functions of other libraries (W&B's) to run.
_ABORT_SECONDS = 10.0
_LEAVE_SECONDS = 60.0
#: Variables that were set -> what they were before the group was opened.
_variables_before: dict[str, str | None] = {}


def check_meeting_point(world: World) -> None:
    """Raise `UserError` when the name of the first node means nothing here;
    torch would try it for minutes.
    """
    if world.master_address is None:
        return
    for attempt in range(_RESOLVE_TRIES):
        try:
            socket.getaddrinfo(world.master_address, world.master_port)
            return
        except socket.gaierror as error:
            if attempt + 1 == _RESOLVE_TRIES:
                raise UserError(
                    f"the first node's name {world.master_address} does not resolve on"
                    f" {socket.gethostname()} ({error.strerror}); export"
                    f" {MASTER_ADDRESS_VARIABLE}=<its address>, or submit with `electra-dist launch"
                    " slurm`, which asks Slurm for it"
                ) from error
            time.sleep(1)  # a name server may have been too busy


def open_group(
    world: World,
    timeout: timedelta = timedelta(minutes=30),
    meeting: Meeting | None = None,
    meet_seconds: float = 180.0,
) -> None:
    """Open the process group: nccl between GPUs, gloo between CPUs.

    Several ranks on GPUs have both: what the ranks agree on (stop? save? an error?) travels between
    their hosts, so that no rank waits for its GPU to agree. `meeting` is where the ranks have met
    (`open_meeting`); without one they meet here. Collectives fail after `timeout`. Raises
    `UserError` where the ranks do not reach each other.
    """
    device = world.device
    tune_allocator(device)
    _quieten()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world.world_size == 1:
        dist.init_process_group(
            backends(world), store=HashStore(), rank=0, world_size=1, timeout=timeout
        )
    else:
        _open_over_meeting(
            world, meeting or _open_and_close_meeting(world, meet_seconds), meet_seconds
        )
        set_timeout(timeout)
        check_gpus(world)
    signs.enter("start")


def check_gpus(world: World) -> None:
    """Raise `ConfigError` on all ranks when two of them have the same GPU."""
    if world.device.type == "cuda":
        places = gather_objects([host_name(), gpus.identity(world.device)], world)
        gpus.check_one_each(
            [(host, gpu) for host, gpu in places], os.environ.get("CUDA_VISIBLE_DEVICES")
        )


def open_meeting(
    world: World, seconds: float = 180.0, stop: Callable[[], bool] = lambda: False
) -> Meeting | None:
    """Wait for all ranks, `seconds` at most, as long as `stop` does not end it; None where there is
    only one.

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
    """Have the collectives of every group fail after `timeout`,
    of those that other libraries have made for themselves too.
    """
    for group in list(dist.distributed_c10d._world.pg_map):
        dist.distributed_c10d._set_pg_timeout(timeout, group)


def backends(world: World) -> str:
    """What `init_process_group` is told: gloo between CPUs,
    nccl between GPUs, and gloo between their hosts.
    """
    if world.device.type == "cpu":
        return "gloo"
    if world.world_size == 1:
        return "nccl"
    return "cpu:gloo,cuda:nccl"


def _open_over_meeting(world: World, meeting: Meeting, seconds: float) -> None:
    place = f"{world.master_address}:{world.master_port}"
    _set_variable("MASTER_ADDR", str(world.master_address))
    _set_variable("MASTER_PORT", str(world.master_port))
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
            f"the {world.world_size} ranks met at {place}, but do not reach each other: {cause}. On"
            " several nodes set GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME) to the network"
            " interface between them"
        ) from error


def _set_variable(name: str, value: str) -> None:
    """Set an environment variable until the group is closed."""
    _variables_before.setdefault(name, os.environ.get(name))
    os.environ[name] = value


def _restore_variables() -> None:
    """Leave the environment as it was: other libraries take a rank for a sign of a whole group."""
    for name, value in _variables_before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _variables_before.clear()


def _quieten() -> None:
    """Silence what torch prints about itself on every rank and every step."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


def close_group() -> None:
    """Close the process group, if there is one;
    all ranks call it, at the end of what they did together.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    _restore_variables()


def abort() -> None:
    """Let go of the process group without waiting for the other ranks: this one has failed.

    `destroy_process_group` would wait for collectives that the others never join. NCCL's own abort
    has been seen to hang, so it gets a few seconds; the process ends afterwards anyway.
    """
    if dist.is_initialized():
        thread = threading.Thread(target=_abort, name="electra-dist-abort", daemon=True)
        thread.start()
        thread.join(_ABORT_SECONDS)
    _restore_variables()


def _abort() -> None:
    with suppress(Exception):  # the process is about to end, whatever state the group is in
        dist.distributed_c10d._abort_process_group()


def leave(status: int) -> NoReturn:
    """End this process with `status`, without taking the interpreter down.

    Other libraries keep the process group alive, and with it gloo's threads. One that lets go of
    its last tensor while the interpreter goes down wants the lock of a dead interpreter and aborts
    the process (SIGABRT, "terminate called without an active exception"): a finished run would
    count as a crash. Exit functions run, for a bounded time; output is flushed.
    """
    bound = threading.Timer(_LEAVE_SECONDS, os._exit, (status,))
    bound.daemon = True
    bound.start()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
