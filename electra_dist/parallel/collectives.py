"""How the ranks agree: collectives between hosts, and errors that all ranks raise.

Comes in: a `World` whose process group is open. An error of one rank is every rank's error
(`together`): all of them raise it within seconds, and none waits for a rank that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from electra_dist import errors
from electra_dist.errors import PeerFailedError, UserError
from electra_dist.parallel.world import World

UserErrorType = TypeVar("UserErrorType", bound=UserError)


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
    return [
        json.loads(bytes(part[: int(length)].numpy()))
        for part, length in zip(parts, lengths, strict=True)
    ]


def gather_arrays(
    arrays: Sequence[npt.NDArray[Any]], world: World
) -> list[list[npt.NDArray[Any]]] | None:
    """These one-dimensional arrays of every rank, in rank order, on rank 0; None on the others.

    The ranks give as many arrays, of the same types; their lengths may differ.
    """
    if world.world_size == 1:
        return [list(arrays)]
    lengths: list[list[int]] = gather_objects([len(array) for array in arrays], world)
    gathered = []
    for number, array in enumerate(arrays):
        longest = max(rank[number] for rank in lengths) * array.itemsize
        padded = torch.zeros(longest, dtype=torch.uint8)
        raw = np.frombuffer(array.tobytes(), dtype=np.uint8)
        padded[: len(raw)] = torch.from_numpy(raw.copy())
        parts = None
        if world.is_main:
            parts = [torch.empty_like(padded) for _ in lengths]
        dist.gather(padded, parts, dst=0)
        if parts is not None:
            gathered.append([part.numpy().view(array.dtype) for part in parts])
    if not world.is_main:
        return None
    return [
        [gathered[number][rank][:length] for number, length in enumerate(lengths[rank])]
        for rank in range(world.world_size)
    ]


def broadcast_object(content: Any, world: World) -> Any:
    """`content` of rank 0, on every rank; travels as JSON."""
    if world.world_size == 1:
        return content
    raw = torch.frombuffer(
        bytearray(json.dumps(content if world.is_main else None).encode()), dtype=torch.uint8
    )
    length = torch.tensor([raw.numel()])
    dist.broadcast(length, 0)
    if world.is_main:
        buffer = raw
    else:
        buffer = torch.empty(int(length), dtype=torch.uint8)
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


def raise_together(error: Exception | None, world: World) -> None:
    """Raise on every rank when any rank brings an error; every rank must call this.

    A `UserError` is raised on all ranks in its own class, the messages of all ranks joined. Any
    other exception goes on in the rank that has it; the others raise a `PeerFailedError` that names
    it.
    """
    if error is None:
        mine = None
    else:
        mine = [type(error).__name__, str(error), isinstance(error, UserError)]
    found = [(rank, *entry) for rank, entry in enumerate(gather_objects(mine, world)) if entry]
    if not found:
        return
    if error is not None and not isinstance(error, UserError):
        raise error
    bugs = [
        f"rank {rank}: {kind}: {message}" for rank, kind, message, is_user in found if not is_user
    ]
    if bugs:
        raise PeerFailedError("; ".join(bugs[:4])) from error
    messages = list(dict.fromkeys(message for _, _, message, _ in found))
    kind = getattr(errors, found[0][1], UserError)
    if len(messages) > 4:
        more = f" (and {len(messages) - 4} more)"
    else:
        more = ""
    raise on_every_rank(kind("; ".join(messages[:4]) + more)) from error


def on_every_rank(error: UserErrorType) -> UserErrorType:
    """Mark an error that all ranks raise, so that rank 0 alone prints it."""
    error.everywhere = True
    return error


@contextmanager
def together(world: World) -> Iterator[None]:
    """A block after which all ranks go on or all raise (`raise_together`);
    it must hold no collective of its own.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    raise_together(error, world)
