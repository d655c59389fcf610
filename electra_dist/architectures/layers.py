"""The torch part of an architecture: what it has to offer.

Comes in: sizes, and `Tools`, which are the same for any architecture. Goes out: modules that hold
parameters, and `LayerRule`, the arithmetic of a layer as a function of its weights. The arithmetic
is kept apart from the modules because a group of layers has its weights in one flat parameter
(`model/flat/network.py`).

Letters: B rows, L row length, H hidden, E embedding, A heads, D head size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from electra_dist.architectures.sizes import EncoderSizes, ModelSizes

#: What a layer computes with, by the name of the parameter.
Weights = Mapping[str, Tensor]


class Tools(NamedTuple):
    """What a layer is handed.

    attend      (query, key and value: (B, L, 3, A, D), layout, dropout) -> (B, L, A, D): attention
                inside the documents that the layout describes
    dropout     (x, probability, training) -> x with elements set to zero
    recomputed  (function, *inputs) -> function(*inputs), an elementwise result, or a product of one
                with a matrix; the elementwise result is not kept where that saves memory
    """

    attend: Callable[[Tensor, Any, float], Tensor]
    dropout: Callable[[Tensor, float, bool], Tensor]
    recomputed: Callable[..., Tensor]


class LayerRule(ABC):
    """The arithmetic of one encoder layer.

    Holds numbers and functions alone, no tensor: layers of one network compile to one graph.
    """

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """New modules with the parameters of one layer, by name.

        What ends in `norm`, and every bias, is not decayed.
        """

    @abstractmethod
    def compute(self, weights: Weights, hidden_blh: Tensor, layout: Any, training: bool) -> Tensor:
        """One layer: (B, L, H) -> (B, L, H). Without data-dependent control flow, so that it
        compiles as one graph.
        """


class Embeddings(nn.Module):
    """Embedding tables and what normalises their sum.

    `word` is the word table, (V, E), which the generator compares with at its output. In
    `disentangled` the tables of the discriminator hold differences to the generator's, and the
    caller adds that network's sum before `norm`.
    """

    compiled_parts = ("forward", "sum")

    word: nn.Embedding
    norm: nn.Module

    def sum(self, tokens_bl: Tensor, positions_bl: Tensor) -> Tensor:
        """Before `norm`: (B, L, E)."""
        raise NotImplementedError

    def forward(self, tokens_bl: Tensor, positions_bl: Tensor) -> Tensor:
        """Activations after `norm`: (B, L, E)."""
        out: Tensor = self.norm(self.sum(tokens_bl, positions_bl))
        return out


class GeneratorHead(nn.Module):
    """(..., H) -> (..., E): what the word table is compared with."""


class DiscriminatorHead(nn.Module):
    """(B, L, H) -> (B, L): one logit for each token."""


class LayerPart(Protocol):
    """The torch part; a module of functions and classes."""

    @property
    def GLOROT(self) -> tuple[str, ...]:  # noqa: N802 - a constant of a module
        """Linears of a network that start from Glorot's uniform, in the order in which they draw;
        a network has some of them. All others start as `model.parameters.initialise` does it.
        """

    def make_rule(self, model: ModelSizes, sizes: EncoderSizes, tools: Tools, /) -> LayerRule:
        """The arithmetic of the layers of one network."""

    def make_embeddings(self, model: ModelSizes, vocab_size: int, /) -> Embeddings:
        """The embeddings of one network."""

    def make_generator_head(self, model: ModelSizes, /) -> GeneratorHead:
        """The generator's head."""

    def make_discriminator_head(self, model: ModelSizes, /) -> DiscriminatorHead:
        """The discriminator's head."""
