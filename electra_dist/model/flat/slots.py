"""Parameters that lie in one flat one: where each of them is, and views of them.

Why: `flat/network.py`. Everything that names parameters (checkpoints, exports) goes on speaking of
the original ones; `named_slices` says where each of them lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Slot(NamedTuple):
    """Where one parameter lies: `shape`, from element `start` of a flat one."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Slice(NamedTuple):
    """One parameter of a network:
    `shape`, from element `start` of the flattened parameter `held`.
    """

    name: str
    shape: tuple[int, ...]
    held: nn.Parameter
    start: int


class FlatParameter(NamedTuple):
    """One flat parameter: `name` of the module `owner`,
    and what lies in it by its name from the network, in order.
    """

    owner: nn.Module
    name: str
    slots: tuple[Slot, ...]

    @property
    def tensor(self) -> nn.Parameter:
        """The parameter itself."""
        return self.owner.get_parameter(self.name)


def lay_out(parameters: Iterable[tuple[str, Tensor]]) -> tuple[Slot, ...]:
    """One behind the other."""
    slots: list[Slot] = []
    start = 0
    for name, parameter in parameters:
        slots.append(Slot(name, tuple(parameter.shape), start))
        start += parameter.numel()
    return tuple(slots)


def cut(flat: Tensor, slots: Sequence[Slot]) -> dict[str, Tensor]:
    """The views of `flat` that `slots`, all of them and in order, describe; differentiable."""
    if len(slots) == 1:
        # its gradient is the flat one's, without a copy
        return {slots[0].name: flat.view(slots[0].shape)}
    parts = flat.split([slot.elements for slot in slots])
    return {slot.name: part.view(slot.shape) for slot, part in zip(slots, parts, strict=True)}


def place(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a parameter or module of `network` belongs to, and its name there."""
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf


def take_over(
    network: nn.Module, owner: nn.Module, name: str, taken: Sequence[str]
) -> FlatParameter:
    """Make `name` of `owner` one flat parameter with the values of those of `network` that are
    named in `taken`.

    What had them has None instead.
    """
    parameters = [(key, network.get_parameter(key)) for key in taken]
    slots = lay_out(parameters)
    values = torch.cat([parameter.detach().flatten() for _, parameter in parameters])
    for key in taken:
        module, leaf = place(network, key)
        del module._parameters[leaf]
        setattr(module, leaf, None)
    owner.register_parameter(name, nn.Parameter(values))
    return FlatParameter(owner, name, slots)


def keeping_no_view(parameter: nn.Parameter) -> AbstractContextManager[Any]:
    """Within it autograd keeps, instead of a view of `parameter`, where in it the view lies."""
    storage = parameter.untyped_storage().data_ptr()

    def pack(tensor: Tensor) -> Any:
        if tensor is parameter or tensor.untyped_storage().data_ptr() != storage:
            return tensor
        return tensor.shape, tensor.stride(), tensor.storage_offset()

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        return parameter.detach().as_strided(*packed)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def named_slices(network: nn.Module) -> Iterator[Slice]:
    """Every parameter of `network` by its own name, in a fixed order,
    whether it lies in a flat one or by itself.
    """
    flat_network = getattr(network, "flat", None)
    flats = {
        id(flat.tensor): flat
        for flat in (flat_network.parameters if flat_network is not None else ())
    }
    for name, parameter in network.named_parameters():
        flat = flats.get(id(parameter))
        if flat is None:
            yield Slice(name, tuple(getattr(parameter, "ds_shape", parameter.shape)), parameter, 0)
            continue
        for slot in flat.slots:
            yield Slice(slot.name, slot.shape, parameter, slot.start)
