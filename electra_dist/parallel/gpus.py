"""Which GPU a rank has, so that no two ranks of a run share one by accident.

NCCL would refuse two ranks on one GPU late and in its own words; a node where all ranks see the
same single GPU has such ranks. The identity is the device's own, not its number: with one GPU
visible to each task every rank is on number 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from electra_dist.errors import ConfigError

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_NAMED = 4


def identity(device: torch.device, environment: Mapping[str, str] = os.environ) -> str:
    """What names the GPU of `device` on its host: the UUID of the GPU,
    or of the MIG instance that is visible here.
    """
    entries = [entry.strip() for entry in environment.get(_VISIBLE, "").split(",")]
    number = device.index or 0
    if number < len(entries) and entries[number].upper().startswith("MIG-"):
        return entries[number].upper()
    return str(torch.cuda.get_device_properties(device).uuid)


def check_one_each(places: Sequence[tuple[str, str]], setting: str | None) -> None:
    """Raise `ConfigError` when two ranks have the same GPU.

    places   host and `identity` of each rank, in the order of the ranks
    setting  CUDA_VISIBLE_DEVICES of this rank, for the message
    """
    ranks: dict[tuple[str, str], list[int]] = {}
    for rank, place in enumerate(places):
        ranks.setdefault(place, []).append(rank)
    shared = {place: found for place, found in ranks.items() if len(found) > 1}
    if not shared:
        return
    (host, gpu), found = next(iter(shared.items()))
    named = ", ".join(map(str, found[:_NAMED])) + (", ..." if len(found) > _NAMED else "")
    if len(shared) > 1:
        more = f" (and {len(shared) - 1} more GPUs are shared)"
    else:
        more = ""
    if setting is None:
        visible = "is not set"
    else:
        visible = f"is {setting}"
    raise ConfigError(
        f"ranks {named} have the same GPU on {host}, {gpu}{more}: one rank a GPU. {_VISIBLE}"
        f" {visible} there; start as many ranks on a node as it has GPUs for this job (launch local"
        " --processes, srun --ntasks-per-node), or give each task its own"
    )
