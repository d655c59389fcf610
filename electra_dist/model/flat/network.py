"""A network with few flat parameters, as the engines partition, gather and reduce them.

DeepSpeed works on each parameter by itself: it hooks, gathers, casts, reduces, adds and zeroes each
of them, from Python, and a layer alone has sixteen. Flat, a network has

    matrices   one for each group of layers: their weights; gathered around the group's call
    words      the word embeddings, as they are
    shell      all other weights: projection, heads, positions, token types
    vectors    what is not decayed: every bias and LayerNorm

What the modules compute with are views into them. DeepSpeed also works on each module by itself, so
only those that have parameters of their own are registered: the network and its groups of layers.

Under ZeRO-3 the memory of `matrices` changes between forward and backward. Autograd may therefore
keep the parameter, but no view of it: a view would hold the gathered weights of all groups until
the backward. `keeping_no_view` sees to that, around compiled code too (which would keep transposed
views).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn

from electra_dist.config import layers_of_groups
from electra_dist.model.encoder import Encoder, Layer, LayerGroup
from electra_dist.model.flat.slots import FlatParameter, Slot, cut, place, take_over
from electra_dist.model.parameters import MATRICES, SHELL, VECTORS, WORDS, no_decay

_LAYERS = "encoder.layers."
#: What has a parameter to itself:
#: an embedding's gradient would have to be copied into a larger one.
_WORD_TABLE = "word.weight"


class FlatNetwork:
    """The flat parameters of a network, which lose their originals when it is made.

    parameters  all of them
    partitioned their memory is there only around the calls of the network and of its groups
    (ZeRO-3)
    """

    def __init__(self, network: nn.Module, partitioned: bool) -> None:
        self._network = network
        encoder = network.get_submodule("encoder")
        assert isinstance(encoder, Encoder)
        layers = [layer for layer in encoder.layers if isinstance(layer, Layer)]
        counts = layers_of_groups(len(layers), _elements(layers[0].matrix_slots))
        names = [name for name, _ in network.named_parameters()]
        of_layers = [name for name in names if name.startswith(_LAYERS)]
        others = [name for name in names if not name.startswith(_LAYERS)]
        words = [name for name in others if name.endswith(_WORD_TABLE)]
        shell = [name for name in others if not no_decay(name) and name not in words]
        vectors = [name for name in of_layers if no_decay(name)]

        self.parameters: list[FlatParameter] = []
        first = 0
        for count in counts:
            group = LayerGroup(layers[first : first + count], partitioned)
            encoder.groups.append(group)
            inside = tuple(f"{_LAYERS}{index}." for index in range(first, first + count))
            matrices = [
                name for name in of_layers if not no_decay(name) and name.startswith(inside)
            ]
            self.parameters.append(take_over(network, group, MATRICES, matrices))
            first += count
        self._whole = [take_over(network, network, SHELL, shell)]
        if words:
            self._whole.append(take_over(network, network, WORDS, words))
        self._vectors = take_over(
            network, network, VECTORS, vectors + [name for name in others if no_decay(name)]
        )
        self.parameters += [*self._whole, self._vectors]

        self._other_vectors = self._vectors.slots[len(vectors) :]
        self._lengths = [count * _elements(layers[0].vector_slots) for count in counts]
        self._lengths.append(_elements(self._other_vectors))
        _hide_modules(network)

    @contextmanager
    def lent(self) -> Iterator[Sequence[Tensor]]:
        """Within it every module outside of the layers has its parameters; gives the vectors of
        each group.

        As views, so that their gradients come to the flat parameters. Not reentrant.
        """
        *of_groups, others = self._vectors.tensor.split(self._lengths)
        weights = cut(others, self._other_vectors)
        for flat in self._whole:
            weights |= cut(flat.tensor, flat.slots)
        places = [(*place(self._network, name), weight) for name, weight in weights.items()]
        # Plain attributes: among its parameters, DeepSpeed would take a view for one of its own.
        for module, leaf, weight in places:
            setattr(module, leaf, weight)
        try:
            yield of_groups
        finally:
            for module, leaf, _ in places:
                setattr(module, leaf, None)


def lent(flat: FlatNetwork | None) -> AbstractContextManager[Sequence[Tensor] | None]:
    """`flat.lent()`, and nothing where the parameters lie in their modules."""
    if flat is None:
        return nullcontext()
    return flat.lent()


def _elements(slots: Sequence[Slot]) -> int:
    return sum(slot.elements for slot in slots)


def _hide_modules(network: nn.Module) -> None:
    """Make every module that has no parameter in or below it a plain attribute of its parent."""
    for path, module in list(network.named_modules()):
        if path and next(module.parameters(), None) is None:
            parent, leaf = place(network, path)
            del parent._modules[leaf]
            parent.__dict__[leaf] = module
