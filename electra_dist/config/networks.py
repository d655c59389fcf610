"""Section `model`: sizes and structure of both networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from electra_dist.config.fields import (
    ArchitectureName,
    Layers,
    PositiveFloat,
    Probability,
    Section,
    Vocabulary,
    Width,
)


class NetworkConfig(Section):
    """The encoder of one network."""

    layers: Layers
    """Encoder layers."""
    hidden_size: Width
    """Width of the encoder."""
    heads: Width
    """Attention heads; must divide hidden_size."""
    ffn_size: Width
    """Inner width of the feed-forward part."""


class ModelConfig(Section):
    """Sizes and structure of both networks."""

    architecture: ArchitectureName = "electra"
    """Layers, embeddings and heads of both networks. electra: those of ELECTRA and BERT."""
    preset: Literal["tiny", "small", "base", "large", "xl"] = "small"
    """Named sizes; keys set beside it win."""
    vocab_size: Vocabulary | None = None
    """Default: the vocabulary of the shards; when set, it must equal it."""
    embedding_size: Width
    """Width of the embedding tables; projected where it differs from hidden_size."""
    max_positions: Annotated[int, Field(gt=0, le=2**20)] = 512
    """Positions of the table: the longest row."""
    embedding_sharing: Literal["shared", "disentangled", "none"] = "shared"
    """shared: one embedding for both (ELECTRA). disentangled: the discriminator adds its own delta
    to the detached embeddings of the generator (DeBERTaV3). none: each network has its own.
    """
    generator: NetworkConfig
    discriminator: NetworkConfig
    dropout: Probability = 0.0
    """Of embeddings and layer outputs (ELECTRA: 0.1)."""
    attention_dropout: Probability = 0.0
    """Of attention weights; above 0 the backends triton and sdpa run, varlen does not."""
    layer_norm_epsilon: PositiveFloat = 1e-12
    """Added to the variance in LayerNorm."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the truncated normal that weights start from."""
    generator_bias: Literal["zeros", "unigram"] = "unigram"
    """Start of the generator's output bias:
    zeros (ELECTRA), or the log frequency of each token in the shards.
    """
    temperature: PositiveFloat = 1.0
    """Temperature of the softmax that replaced tokens are sampled from."""
    attention: Literal["auto", "sdpa", "varlen", "triton"] = "auto"
    """Attention backend. auto: the fastest one that this machine runs; the choice is logged.
    varlen: FlashAttention 3 or 4 where its package is installed, else 2.
    """
    generator_head: Literal["auto", "chunked", "triton"] = "auto"
    """Backend of the generator's output layer. auto:
    triton (one fused kernel) on cuda, chunked elsewhere.
    """
