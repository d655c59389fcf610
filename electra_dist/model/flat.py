"""A network's parameters as few flat ones: what the engines partition, gather and reduce as one piece each.

DeepSpeed works on each parameter by itself: it hooks, gathers, casts, reduces, adds and zeroes each of them, from
Python, and a layer alone has sixteen. Flat, a network has

    matrices   one a layer: its four weights; gathered around the layer's call
    shell      all other weights but the word embeddings: projection, heads, positions, token types
    vectors    what is not decayed: every bias and LayerNorm of the network

and its word embeddings as they are. What the modules compute with are views into them. Everything that names
parameters (checkpoints, exports) goes on speaking of the original ones: `named_slices` says where each of them lies.

Under ZeRO-3 the memory of `matrices` changes between forward and backward. Autograd may therefore keep the parameter,
but no view of it: a view would hold the gathered weights of all layers until the backward. `keeping_no_view` sees to
that, around compiled code too (which would keep transposed views).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from electra_dist.model.parameters import MATRICES, SHELL, VECTORS, no_decay

#: What stays as it is: an embedding's gradient would have to be copied into a larger one.
_WORD_TABLE = "word.weight"
#: Parameters by their names.
Weights = Mapping[str, Tensor]


class Slot(NamedTuple):
    """Where one parameter lies: `shape`, from element `start` of a flat one; `name` from that one's owner."""

    name: str
    shape: torch.Size
    start: int


class Slice(NamedTuple):
    """One parameter of a network: `shape`, from element `start` of the flattened parameter `held`."""

    name: str
    shape: tuple[int, ...]
    held: nn.Parameter
    start: int


class FlatParameter(NamedTuple):
    """One flat parameter, registered as `name` of the module `owner`, and what lies in it, in order."""

    owner: nn.Module
    name: str
    slots: tuple[Slot, ...]

    @property
    def tensor(self) -> nn.Parameter:
        """The parameter itself, which engines may replace."""
        found: nn.Parameter = getattr(self.owner, self.name)
        return found

    def views(self) -> dict[str, Tensor]:
        """What lies in it, by name; differentiable."""
        return cut(self.tensor, self.slots)


def cut(flat: Tensor, slots: Iterable[Slot]) -> dict[str, Tensor]:
    """The views of `flat` that `slots`, all of them and in order, describe."""
    slots = tuple(slots)
    parts = flat.split([slot.shape.numel() for slot in slots])
    return {slot.name: part.view(slot.shape) for slot, part in zip(slots, parts, strict=True)}


def take_over(owner: nn.Module, name: str, taken: Iterable[str]) -> FlatParameter:
    """Replace the parameters of `owner` that are named in `taken` by one flat one with the same values."""
    slots: list[Slot] = []
    values: list[Tensor] = []
    start = 0
    for key in taken:
        parameter = owner.get_parameter(key)
        slots.append(Slot(key, parameter.shape, start))
        values.append(parameter.detach().flatten())
        start += parameter.numel()
        module, leaf = _place(owner, key)
        del module._parameters[leaf]
        setattr(module, leaf, None)
    owner.register_parameter(name, nn.Parameter(torch.cat(values)))
    return FlatParameter(owner, name, tuple(slots))


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


class FlattensLayer(Protocol):
    """What a layer has to have."""

    vector_slots: tuple[Slot, ...]

    def flatten(self, partitioned: bool) -> None: ...


class FlatNetwork:
    """The shell and the vectors of a network whose layers hold their own `matrices`.

    `layers`, by name, are handed their vectors as one piece each, instead of having them lent to their modules.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        inside = tuple(f"{prefix}." for prefix in layers)
        names = [name for name, _ in network.named_parameters() if not name.endswith(_WORD_TABLE)]
        shell = [name for name in names if not no_decay(name) and not name.startswith(inside)]
        # The vectors of a layer lie together, so that one slice of them is the layer's.
        of_layers = [name for name in names if no_decay(name) and name.startswith(inside)]
        others = [name for name in names if no_decay(name) and not name.startswith(inside)]
        self.layer_slots = [
            _within([name for name in of_layers if name.startswith(f"{prefix}.")], f"{prefix}.", layer)
            for prefix, layer in layers.items()
        ]
        self.vectors = take_over(network, VECTORS, of_layers + others)
        self.shell = take_over(network, SHELL, shell)
        self._others = self.vectors.slots[len(of_layers) :]
        self._lengths = [_elements(slots) for slots in [*self.layer_slots, self._others]]

    @contextmanager
    def lent(self) -> Iterator[list[Tensor]]:
        """Within it every module outside of the layers has its parameters; gives the vectors of each layer.

        As views, so that their gradients come to the flat parameters. Not reentrant.
        """
        *of_layers, others = self.vectors.tensor.split(self._lengths)
        weights = self.shell.views() | cut(others, self._others)
        places = [(*_place(self.shell.owner, name), weight) for name, weight in weights.items()]
        # Plain attributes: among its parameters, DeepSpeed would take a view for one of its own.
        for module, leaf, weight in places:
            setattr(module, leaf, weight)
        try:
            yield of_layers
        finally:
            for module, leaf, _ in places:
                setattr(module, leaf, None)


def flatten(network: nn.Module, layers: Mapping[str, nn.Module], partitioned: bool) -> FlatNetwork:
    """Put the parameters of `network` into flat ones; `layers` are its layers by name, see `FlattensLayer`."""
    flat = FlatNetwork(network, layers)
    for layer, slots in zip(layers.values(), flat.layer_slots, strict=True):
        own = cast(FlattensLayer, layer)
        own.vector_slots = slots
        own.flatten(partitioned)
    return flat


def lent(flat: FlatNetwork | None) -> AbstractContextManager[Sequence[Tensor] | None]:
    """`flat.lent()`, and nothing where the parameters lie in their modules."""
    return nullcontext() if flat is None else flat.lent()


def _elements(slots: Iterable[Slot]) -> int:
    return sum(slot.shape.numel() for slot in slots)


def _within(names: list[str], prefix: str, layer: nn.Module) -> tuple[Slot, ...]:
    """Slots of the vectors `names` in one piece of their own, named from the layer."""
    slots: list[Slot] = []
    start = 0
    for name in names:
        own = name.removeprefix(prefix)
        shape = layer.get_parameter(own).shape
        slots.append(Slot(own, shape, start))
        start += shape.numel()
    return tuple(slots)


def _place(owner: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return owner.get_submodule(path), leaf


def named_slices(network: nn.Module) -> Iterator[Slice]:
    """Every parameter of `network` by its own name, in a fixed order, whether it lies in a flat one or by itself."""
    flats = _flat_parameters(network)
    for name, parameter in network.named_parameters():
        flat = flats.get(name)
        if flat is None:
            yield Slice(name, tuple(getattr(parameter, "ds_shape", parameter.shape)), parameter, 0)
            continue
        prefix = name.removesuffix(flat.name)
        for slot in flat.slots:
            yield Slice(prefix + slot.name, tuple(slot.shape), parameter, slot.start)


def _flat_parameters(network: nn.Module) -> dict[str, FlatParameter]:
    """The flat parameters of a network by name."""
    found: dict[str, FlatParameter] = {}
    for path, module in network.named_modules():
        flat = getattr(module, "flat", None)
        held = [flat] if isinstance(flat, FlatParameter) else []
        if isinstance(flat, FlatNetwork):
            held = [flat.shell, flat.vectors]
        found |= {f"{path}.{one.name}".lstrip("."): one for one in held}
    return found
