"""Parameters and floating-point operations of a configuration, from its sizes alone.

What one layer, the embeddings and a head have is the architecture's to say (`Costs`).

Only work that a step needs is counted: true document lengths in
attention, no padding, and the generator's vocabulary projection at the masked positions only.

Letters: E embedding, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from electra_dist.architectures import Costs, Shapes, find_architecture
from electra_dist.config import NETWORKS, Config, Network, layers_of_groups

#: A backward pass costs two forward passes: gradients of the inputs and of the weights.
FORWARD_AND_BACKWARD = 3


def _costs(config: Config) -> Costs:
    return find_architecture(config.model.architecture).costs


def _matrices(shapes: Shapes) -> int:
    """Elements of those that are decayed."""
    return sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)


def _vectors(shapes: Shapes) -> int:
    """Elements of biases and norms."""
    return sum(math.prod(shape) for shape in shapes.values() if len(shape) == 1)


def _elements(shapes: Shapes) -> int:
    return _matrices(shapes) + _vectors(shapes)


def _encoder_weights(config: Config, network: Network) -> int:
    """Weights of the matrix products that every token passes: projection and layers."""
    sizes = config.network(network)
    if config.model.embedding_size != sizes.hidden_size:
        projection = config.model.embedding_size * sizes.hidden_size
    else:
        projection = 0
    return projection + sizes.layers * layer_weights(config, network)


def layer_weights(config: Config, network: Network) -> int:
    """Elements of the matrices of one layer."""
    return _matrices(_costs(config).layer_shapes(config.network(network)))


def _layer_vectors(config: Config, network: Network) -> int:
    return _vectors(_costs(config).layer_shapes(config.network(network)))


def encoder_parameters(config: Config, network: Network) -> int:
    """Parameters of one encoder without embeddings: weights, biases and norms."""
    sizes = config.network(network)
    if config.model.embedding_size != sizes.hidden_size:
        projection_bias = sizes.hidden_size
    else:
        projection_bias = 0
    vectors = sizes.layers * _layer_vectors(config, network)
    return _encoder_weights(config, network) + vectors + projection_bias


def embedding_parameters(config: Config, vocab_size: int) -> int:
    """Embedding tables and their norm."""
    return _elements(_costs(config).embedding_shapes(config.model, vocab_size))


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
    costs = _costs(config)
    tables = embedding_parameters(config, vocab_size)
    # with the bias of the output
    g_head = _elements(costs.head_shapes(config.model, "generator")) + vocab_size
    d_head = _elements(costs.head_shapes(config.model, "discriminator"))
    if config.model.embedding_sharing == "shared":
        d_tables = 0
    else:
        d_tables = tables
    return ParameterCount(
        generator=tables + encoder_parameters(config, "generator") + g_head,
        discriminator=d_tables + encoder_parameters(config, "discriminator") + d_head,
        embeddings=tables,
    )


def flat_parameters(config: Config, vocab_size: int) -> dict[Network, list[int]]:
    """Elements of the parameters that each engine works on, as `model.flat_network` makes them.

    What the host does, it does for each of them; what DeepSpeed gathers or reduces at a time is one
    of them at least.
    """
    model = config.model
    costs = _costs(config)
    found: dict[Network, list[int]] = {}
    for network in NETWORKS:
        sizes = config.network(network)
        a_layer = layer_weights(config, network)
        groups = [count * a_layer for count in layers_of_groups(sizes.layers, a_layer)]

        vectors = sizes.layers * _layer_vectors(config, network)
        if model.embedding_size != sizes.hidden_size:
            vectors += sizes.hidden_size
        words = []
        if network == "generator" or model.embedding_sharing != "shared":
            words.append(vocab_size * model.embedding_size)
            vectors += _vectors(costs.embedding_shapes(model, vocab_size))
        vectors += _vectors(costs.head_shapes(model, network))
        if network == "generator":
            vectors += vocab_size

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
    costs = _costs(config)
    total = 0.0
    for network in NETWORKS:
        total += 2.0 * _encoder_weights(config, network) * real_tokens
        total += costs.score_flops(config.network(network), squared_lengths)
    g_head = _matrices(costs.head_shapes(config.model, "generator"))
    d_head = _matrices(costs.head_shapes(config.model, "discriminator"))
    total += 2.0 * (g_head + config.model.embedding_size * vocab_size) * masked
    total += 2.0 * d_head * real_tokens
    return FORWARD_AND_BACKWARD * total
