"""What an architecture costs: shapes, operations, and what a micro-batch keeps for its backward.

Comes in: sizes and the facts of a micro-batch. Goes out: numbers, which `plan` adds up with those
that every architecture shares. Without torch, so that a login node can ask.

Letters: B rows, L row length, T = B x L tokens, M masked slots, H hidden, E embedding, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from electra_dist.architectures.sizes import EncoderSizes, ModelSizes, Network, Shapes


class Saved(NamedTuple):
    """One tensor that autograd saves, or several alike."""

    name: str
    bytes: float


@dataclass(frozen=True)
class Surroundings:
    """What decides which tensors an operation saves.

    device     where the tensors lie
    attention  the backend: sdpa, varlen or triton
    compiled   whether the layers are compiled
    """

    device: Literal["cpu", "cuda"]
    attention: Literal["sdpa", "varlen", "triton"]
    compiled: bool = False

    @property
    def recomputes(self) -> bool:
        """Whether elementwise results in front of a product are computed
        again (`model.dropout.recomputed`).
        """
        return self.device == "cpu"

    @property
    def hashes_masks(self) -> bool:
        """Whether dropout keeps a seed, of which the backward makes the
        mask again (`model.dropout.hashed_mask`).
        """
        return self.device == "cpu" and self.compiled


@dataclass(frozen=True)
class MicroBatchFacts:
    """What one network computes with in one micro-batch.

    tokens, masked    T and M
    element_bytes     of an activation in the network's precision
    statistics_bytes  of a mean or a deviation of LayerNorm
    dropout           probability; 0 draws no mask
    around            what the machine runs
    """

    tokens: int
    masked: int
    element_bytes: int
    statistics_bytes: int
    dropout: float
    around: Surroundings


class Costs(Protocol):
    """What `plan` asks; a module of functions, without torch."""

    def layer_shapes(self, sizes: EncoderSizes, /) -> Shapes:
        """Parameters of one encoder layer. Every token passes each of its matrices once."""

    def embedding_shapes(self, model: ModelSizes, vocab_size: int, /) -> Shapes:
        """Parameters of the embeddings; `word.weight` is the word table, (V, E)."""

    def head_shapes(self, model: ModelSizes, network: Network, /) -> Shapes:
        """Parameters of a head, the generator's output matrix (the word table) and bias left out.

        The generator's reads masked positions, the discriminator's every token.
        """

    def score_flops(self, sizes: EncoderSizes, squared_lengths: int, /) -> float:
        """Forward operations of attention's scores and weighted values, all layers.

        squared_lengths  sum over the documents of length squared
        """

    def layer_saved(self, sizes: EncoderSizes, batch: MicroBatchFacts, /) -> list[Saved]:
        """What one layer saves besides its attention (query, key, value and what follows from
        them); its input is its predecessor's output, counted there.
        """

    def layer_rises(
        self, sizes: EncoderSizes, batch: MicroBatchFacts, attention_bytes: float, /
    ) -> tuple[float, ...]:
        """Bytes by which the backward of the last layer rises above what was saved, at each moment
        that can be the highest.

        attention_bytes  what the backend's own backward allocates
        """

    def embeddings_saved(self, model: ModelSizes, batch: MicroBatchFacts, /) -> list[Saved]:
        """What the embeddings save."""

    def head_saved(
        self, model: ModelSizes, network: Network, batch: MicroBatchFacts, /
    ) -> list[Saved]:
        """What a head saves, the generator's logits left out."""
