"""The ranks of an evaluation: a process group for as long as it lasts.

Comes in: the environment, as torchrun, Slurm or `evaluate --processes` sets it. Goes out: a
`World`. One process opens no group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import torch

from electra_dist.parallel.ending import end_by
from electra_dist.parallel.group import abort, close_group, leave, open_group
from electra_dist.parallel.hardware import device_of_command
from electra_dist.parallel.world import World, choose_device, detect

Device = Literal["cpu", "cuda"]
#: A rank that has answered waits that long for the last one.
_TIMEOUT = timedelta(hours=12)


def alone(device: Device | None) -> World:
    """This process and no other; raises `UserError` for a device that is not there."""
    return World(device=device_of_command(device))


@contextmanager
def joined(environment: Mapping[str, str], device: Device | None) -> Iterator[World]:
    """This process among the ranks of `environment`; `device` is CUDA by default where there is
    one.

    Raises `UserError` where the ranks do not meet, and for a device that is not there.
    """
    world = detect(environment, "cpu")
    if world.world_size == 1:
        yield alone(device)
        return
    kind = device_of_command(device).type
    gpus = torch.cuda.device_count()
    if kind == "cuda":
        world = replace(world, device=choose_device("cuda", world.local_rank, gpus))
    end_by(leave)
    open_group(world, _TIMEOUT)
    try:
        yield world
    except BaseException:
        abort()
        raise
    close_group()
