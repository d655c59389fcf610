"""What is changed in DeepSpeed, and why: one function per change.

Each of them reaches into a private part of DeepSpeed 0.19. `prepare_deepspeed` starts DeepSpeed for
an open process group, with the changes that hold for the whole process. `release_deepspeed` lets go
of that group, so that this process can open another one and train again.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
import weakref
from typing import Any

import torch.distributed as dist
from torch import nn

from electra_dist.errors import UserError
from electra_dist.parallel.world import World
from electra_dist.zero import communication
from electra_dist.zero.engine import Engine
from electra_dist.zero.reduction import reduce_scatter_coalesced


class _Started:
    """What DeepSpeed was started for in this process.

    group           the process group, if DeepSpeed was started for one
    rank_before     LOCAL_RANK before that
    """

    group: weakref.ref[Any] | None = None
    rank_before: str | None = None


def prepare_deepspeed(world: World) -> None:
    """Start DeepSpeed for the open process group (`parallel.group.open_group`).

    A second call for the same group does nothing, so that whoever builds engines may call it.
    Groups of an earlier process group are let go of first.
    """
    group = dist.group.WORLD
    if group is None:
        raise RuntimeError("DeepSpeed starts in a process group, and none is open")
    if _Started.group is not None and _Started.group() is group:
        return
    release_deepspeed()
    _Started.group = weakref.ref(group)
    try:
        _start(world)
    except BaseException:
        release_deepspeed()
        raise


def _start(world: World) -> None:
    _tell_device(world)
    without_warnings()
    without_shared_memory_collective()
    without_memory_lines()
    import deepspeed

    if world.device.type == "cpu":
        backend = "gloo"
    else:
        backend = "nccl"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    communication.listen()


def release_deepspeed() -> None:
    """Let go of the process group that DeepSpeed was started for; no engine works afterwards.

    Before DeepSpeed was started, this does nothing.
    """
    if _Started.group is None:
        return
    _Started.group = None
    forget_groups()
    if _Started.rank_before is None:
        os.environ.pop("LOCAL_RANK", None)
    else:
        os.environ["LOCAL_RANK"] = _Started.rank_before


def _tell_device(world: World) -> None:
    """DeepSpeed takes the kind of device and its index from the environment.

    LOCAL_RANK is set until `release_deepspeed`: other libraries take it for a sign of other ranks.
    """
    os.environ["DS_ACCELERATOR"] = world.device.type
    _Started.rank_before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = str(world.device.index or 0)


# --- once per process -----------------------------------------------------------------------------


def without_warnings() -> None:
    """DeepSpeed warns about itself on every rank and in every step."""
    for category in (FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=r"deepspeed")


def without_shared_memory_collective() -> None:
    """On a CPU, DeepSpeed would compile a shared-memory collective that only its inference uses.

    That takes minutes, a compiler, and a lock that a killed run leaves behind.
    """
    module: Any = importlib.import_module("deepspeed.comm.torch")
    module.build_shm_op = lambda: None


def without_memory_lines() -> None:
    """The bf16 optimizer prints the memory in use at every step of its construction."""
    module: Any = importlib.import_module("deepspeed.runtime.bf16_optimizer")
    module.see_memory_usage = lambda *_, **__: None


@functools.cache
def reduce_by_rows() -> None:
    """ZeRO-3 reduces by `reduction.reduce_scatter_coalesced` instead of its own function.

    Its own takes the host longer the more ranks there are. Raises `UserError` where ZeRO-3 would
    not call ours.
    """
    from deepspeed.runtime.zero import stage3

    if not hasattr(stage3, "reduce_scatter_coalesced"):
        raise UserError(
            "this version of deepspeed has no stage3.reduce_scatter_coalesced; install one from"
            " 0.19"
        )
    stage3.reduce_scatter_coalesced = reduce_scatter_coalesced


# --- per engine -----------------------------------------------------------------------------------


def reduce_nothing(engine: Engine) -> None:
    """DeepSpeed does not reduce the gradients of this engine after its last backward.

    Over one rank it would copy them to and fro; or `OverlappedReduction` has reduced them.
    """
    engine.enable_backward_allreduce = False


def go_on_at_the_smallest_scale(engine: Engine) -> None:
    """With fp16, DeepSpeed would end the process where the smallest loss scale overflows.

    What to do then is for the guard to decide.
    """
    if engine.fp16_enabled():
        engine.optimizer.loss_scaler.raise_error_at_min_scale = False


# --- globals that outlive their use ---------------------------------------------------------------


def forget_groups() -> None:
    """DeepSpeed keeps process groups in global variables, closed ones too.

    The next run in this process would fail with "Group is not registered".
    """
    groups = sys.modules.get("deepspeed.utils.groups")
    if groups is not None:
        groups._release_process_group_references()


def forget_hpz_groups() -> None:
    """DeepSpeed keeps the groups of hierarchical partitioning in one global variable.

    A next engine would take them over, whatever its own sizes.
    """
    from deepspeed.utils import groups

    groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None


def forget_modules(network: nn.Module) -> None:
    """ZeRO-3 keeps modules in global variables, and with them the memory of `network`."""
    from deepspeed.runtime.zero import parameter_offload, partitioned_param_coordinator

    own = set(network.modules())
    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if module not in own]
    coordinator = partitioned_param_coordinator.PartitionedParameterCoordinator
    method = coordinator._PartitionedParameterCoordinator__params_to_release
    for cell in method.__closure__ or ():  # the cache lies inside of a wrapper for a profiler
        if hasattr(cell.cell_contents, "cache_clear"):
            cell.cell_contents.cache_clear()
