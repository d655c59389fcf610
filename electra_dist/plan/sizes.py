"""Parameters and floating-point operations of a configuration, from its sizes alone.

Only work that a step needs is counted: true document lengths in
attention, no padding, and the generator's vocabulary projection at the masked positions only.

Letters: H hidden, F feed-forward, E embedding, V vocabulary, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from electra_dist.config import NETWORKS, Config, Network, NetworkConfig, layers_of_groups

#: A backward pass costs two forward passes: gradients of the inputs and of the weights.
FORWARD_AND_BACKWARD = 3


def _encoder_weights(sizes: NetworkConfig, embedding_size: int) -> int:
    """Weights of the matrix products that every token passes:
    projection, attention, feed-forward.
    """
    hidden = sizes.hidden_size
    if embedding_size != hidden:
        projection = embedding_size * hidden
    else:
        projection = 0
    return projection + sizes.layers * layer_weights(sizes)


def layer_weights(sizes: NetworkConfig) -> int:
    """Elements of the four matrices of one layer."""
    return 4 * sizes.hidden_size**2 + 2 * sizes.hidden_size * sizes.ffn_size


def encoder_parameters(sizes: NetworkConfig, embedding_size: int) -> int:
    """Parameters of one encoder without embeddings: weights, biases and LayerNorms."""
    hidden = sizes.hidden_size
    per_layer = 4 * hidden + sizes.ffn_size + hidden + 4 * hidden  # biases, then two LayerNorms
    if embedding_size != hidden:
        projection_bias = hidden
    else:
        projection_bias = 0
    return _encoder_weights(sizes, embedding_size) + sizes.layers * per_layer + projection_bias


def embedding_parameters(config: Config, vocab_size: int) -> int:
    """Word, position and token-type tables and their LayerNorm."""
    return (vocab_size + config.model.max_positions + 2 + 2) * config.model.embedding_size


@dataclass(frozen=True)
class ParameterCount:
    """Trained parameters. `generator` holds the shared embeddings (DESIGN D1)."""

    generator: int
    discriminator: int
    embeddings: int

    @property
    def total(self) -> int:
        return self.generator + self.discriminator

    def of(self, network: Network) -> int:
        """Parameters that the engine of `network` owns."""
        if network == "generator":
            return self.generator
        return self.discriminator


def parameters(config: Config, vocab_size: int) -> ParameterCount:
    """Trained parameters of both networks for a vocabulary of `vocab_size`."""
    model = config.model
    size = config.model.embedding_size
    tables = embedding_parameters(config, vocab_size)
    g_hidden = model.generator.hidden_size
    d_hidden = model.discriminator.hidden_size
    g_head = g_hidden * size + size + 2 * size + vocab_size
    d_head = d_hidden * d_hidden + d_hidden + d_hidden + 1
    if model.embedding_sharing == "shared":
        d_tables = 0
    else:
        d_tables = tables
    return ParameterCount(
        generator=tables + encoder_parameters(model.generator, size) + g_head,
        discriminator=d_tables + encoder_parameters(model.discriminator, size) + d_head,
        embeddings=tables,
    )


def flat_parameters(config: Config, vocab_size: int) -> dict[Network, list[int]]:
    """Elements of the parameters that each engine works on, as `model.flat_network` makes them.

    What the host does, it does for each of them; what DeepSpeed gathers or reduces at a time is one
    of them at least.
    """
    model = config.model
    found: dict[Network, list[int]] = {}
    for network in NETWORKS:
        sizes = config.network(network)
        hidden = sizes.hidden_size
        a_layer = layer_weights(sizes)
        groups = [count * a_layer for count in layers_of_groups(sizes.layers, a_layer)]

        vectors = sizes.layers * (9 * hidden + sizes.ffn_size)
        if model.embedding_size != hidden:
            vectors += hidden
        words = []
        if network == "generator" or model.embedding_sharing != "shared":
            words.append(vocab_size * model.embedding_size)
            vectors += 2 * model.embedding_size
        if network == "generator":
            vectors += 3 * model.embedding_size + vocab_size
        else:
            vectors += hidden + 1

        shell = parameters(config, vocab_size).of(network) - sum(groups) - sum(words) - vectors
        found[network] = [*groups, *words, shell, vectors]
    return found


def step_flops(
    config: Config, vocab_size: int, real_tokens: int, squared_lengths: int, masked: int
) -> float:
    """Floating-point operations of forward and backward over some rows.

    real_tokens      non-padding tokens
    squared_lengths  sum over the documents of length squared (the scores that attention needs)
    masked           predicted positions

    A product of (m, k) and (k, n) counts 2 m k n. Recomputation is not counted: it is no progress.
    """
    size = config.model.embedding_size
    total = 0.0
    for network in NETWORKS:
        sizes = config.network(network)
        total += 2.0 * _encoder_weights(sizes, size) * real_tokens
        # scores and weighted values
        total += 4.0 * sizes.layers * sizes.hidden_size * squared_lengths
    g_hidden = config.model.generator.hidden_size
    d_hidden = config.model.discriminator.hidden_size
    total += 2.0 * (g_hidden * size + size * vocab_size) * masked
    total += 2.0 * (d_hidden * d_hidden + d_hidden) * real_tokens
    return FORWARD_AND_BACKWARD * total
