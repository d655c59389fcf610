"""Sizes of networks, as an architecture is told them: the keys of a configuration's `model` section
that it may read.

Protocols, so that the configuration, which lies above, is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

Network = Literal["generator", "discriminator"]
Sharing = Literal["shared", "disentangled", "none"]
#: Shapes of parameters by name. One-dimensional ones are biases and norms: they are not decayed,
#: and no matrix product needs them.
Shapes = Mapping[str, tuple[int, ...]]


class EncoderSizes(Protocol):
    """The encoder of one network, as `config.NetworkConfig` has it."""

    @property
    def layers(self) -> int:
        """Encoder layers."""

    @property
    def hidden_size(self) -> int:
        """H."""

    @property
    def heads(self) -> int:
        """Attention heads; they divide H."""

    @property
    def ffn_size(self) -> int:
        """Inner width of the feed-forward part."""


class ModelSizes(Protocol):
    """Both networks, as `config.ModelConfig` has them."""

    @property
    def embedding_size(self) -> int:
        """E."""

    @property
    def max_positions(self) -> int:
        """The longest row."""

    @property
    def generator(self) -> EncoderSizes:
        """Sizes of the generator."""

    @property
    def discriminator(self) -> EncoderSizes:
        """Sizes of the discriminator."""

    @property
    def dropout(self) -> float:
        """Of embeddings and layer outputs."""

    @property
    def attention_dropout(self) -> float:
        """Of attention weights."""

    @property
    def layer_norm_epsilon(self) -> float:
        """Added to the variance in LayerNorm."""

    @property
    def initializer_range(self) -> float:
        """Standard deviation of the first weights."""
