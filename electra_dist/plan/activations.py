"""What one micro-batch keeps between forward and backward: every tensor that autograd saves, by
name.

Comes in: sizes, and what the machine runs (`Surroundings`). Goes out: lists of (name, bytes) for
the generator, the discriminator and what passes between them, and the temporaries of the backward
of one layer. What lies in a layer, embeddings and heads is the architecture's to say (`Costs`);
attention, the generator's logits and what passes between the networks are counted here.

Letters: B rows, L row length, T = B x L tokens, M masked slots, A heads, D head size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from electra_dist.architectures import (
    Costs,
    MicroBatchFacts,
    Saved,
    Surroundings,
    find_architecture,
)
from electra_dist.config import Config, Network, PrecisionMode, sequence_entries

BYTES: dict[PrecisionMode, int] = {"bf16": 2, "fp16": 2, "fp32": 4}
INT64 = 8
FP32 = 4
BOOL = 1
#: Documents of a row, the padding counted as one: what real text has at rows of 512.
PLANNED_DOCUMENTS = 4
#: Logits that the chunked head of the generator holds at a time,
#: and the smallest chunk (`model.head`).
HEAD_CHUNK_LOGITS = 2**20
HEAD_CHUNK_LOGITS_CUDA = 2**24
HEAD_SMALLEST_CHUNK = 256


def total(saved: Iterable[Saved]) -> float:
    """Bytes of all of them."""
    return sum(tensor.bytes for tensor in saved)


class MicroBatchSizes(NamedTuple):
    """B, L, T and M of one micro-batch of a configuration."""

    rows: int
    length: int
    tokens: int
    masked: int


def micro_batch_sizes(config: Config) -> MicroBatchSizes:
    """Static shapes of one micro-batch (DESIGN D4)."""
    rows = config.train.micro_rows
    length = config.data.row_length
    slots = math.ceil(Fraction(str(config.data.mask_fraction)) * length)
    return MicroBatchSizes(rows, length, rows * length, rows * slots)


def facts_of(config: Config, network: Network, around: Surroundings) -> MicroBatchFacts:
    """What the architecture is told of one micro-batch of `network`."""
    size = micro_batch_sizes(config)
    b = BYTES[config.precision_mode(network)]
    if around.device == "cpu":
        statistics = b
    else:
        statistics = FP32
    return MicroBatchFacts(
        tokens=size.tokens,
        masked=size.masked,
        element_bytes=b,
        statistics_bytes=statistics,
        dropout=config.model.dropout,
        around=around,
    )


def _costs(config: Config) -> Costs:
    return find_architecture(config.model.architecture).costs


def layer_saved(config: Config, network: Network, around: Surroundings) -> list[Saved]:
    """What one encoder layer saves, without checkpointing;
    its input is its predecessor's output, counted there.
    """
    batch = facts_of(config, network, around)
    own = _costs(config).layer_saved(config.network(network), batch)
    return attention_saved(config, network, around) + own


def attention_saved(config: Config, network: Network, around: Surroundings) -> list[Saved]:
    """What the attention of one layer saves, query, key and value included."""
    size = micro_batch_sizes(config)
    sizes = config.network(network)
    b = BYTES[config.precision_mode(network)]
    hidden = size.tokens * sizes.hidden_size * b
    # whose mask is made anew from a seed
    if config.model.attention_dropout and around.attention != "triton":
        # The batched product wants query, key and value contiguous, and the projection's own output
        # is let go; with one head it reads query and key where they are. The softmax is fp32.
        if sizes.heads > 1:
            copies = 4
        else:
            copies = 5
        weights = size.rows * sizes.heads * size.length**2
        if around.hashes_masks:
            return [
                Saved("query, key, value and attended values", 4 * hidden),
                Saved("scores", weights * b),
                Saved("their maximum and sum", 2 * size.tokens * sizes.heads * FP32),
            ]
        return [
            Saved("query, key, value and attended values", copies * hidden),
            Saved("softmax", weights * FP32),
            Saved("attention dropout mask", weights * BOOL),
            Saved("softmax after dropout", 0.0 if around.recomputes else weights * b),
        ]
    return [
        Saved("query, key and value", 3 * hidden),
        Saved("attended values", hidden),
        Saved("log-sum-exp", size.tokens * sizes.heads * FP32),
    ]


def encoder_saved(config: Config, network: Network, around: Surroundings) -> list[Saved]:
    """What the encoder of `network` saves: projection and layers."""
    size = micro_batch_sizes(config)
    sizes = config.network(network)
    b = BYTES[config.precision_mode(network)]
    embedding = config.model.embedding_size
    saved = []
    if config.model.dropout:
        saved.append(Saved("embedding dropout and its mask", size.tokens * embedding * (b + BOOL)))
    if embedding != sizes.hidden_size:
        saved.append(Saved("embedding projection", size.tokens * sizes.hidden_size * b))
    # adds the mask and lets it go
    formula = around.device == "cpu" and config.model.attention_dropout
    if around.attention == "sdpa" and not formula:
        saved.append(Saved("additive block mask", size.rows * size.length**2 * b))
    layer = total(layer_saved(config, network, around))
    if config.train.activation_checkpointing:
        layer = size.tokens * sizes.hidden_size * b  # its output alone, the input of the next
    saved.append(Saved(f"{sizes.layers} layers", sizes.layers * layer))
    return saved


def generator_saved(config: Config, around: Surroundings) -> list[Saved]:
    """The generator: embeddings of the masked rows, encoder,
    head on the masked slots, embeddings that it shares.
    """
    size = micro_batch_sizes(config)
    costs = _costs(config)
    batch = facts_of(config, "generator", around)
    saved = list(costs.embeddings_saved(config.model, batch))
    saved += encoder_saved(config, "generator", around)
    saved += costs.head_saved(config.model, "generator", batch)
    if config.model.embedding_sharing == "shared":
        saved += costs.embeddings_saved(config.model, batch)
    elif config.model.embedding_sharing == "disentangled":
        table = size.tokens * config.model.embedding_size * batch.element_bytes
        saved.append(Saved("shared embedding sum", table))
    saved.append(Saved("batch: ids, positions, labels", size.tokens * (4 * INT64 + 3 * FP32)))
    return saved


def discriminator_saved(config: Config, around: Surroundings) -> list[Saved]:
    """The discriminator: encoder and head, and embeddings of its own where it has them."""
    costs = _costs(config)
    batch = facts_of(config, "discriminator", around)
    saved = encoder_saved(config, "discriminator", around)
    if config.model.embedding_sharing != "shared":
        saved += costs.embeddings_saved(config.model, batch)
    saved += costs.head_saved(config.model, "discriminator", batch)
    return saved


def backward_temporaries(config: Config, network: Network, around: Surroundings) -> float:
    """Bytes by which the backward of the last layer rises above what was saved.

    Entering it, the head's saved tensors are gone and the gradient of the layer's output is there;
    when it is highest, the architecture says. With checkpointing, the layer's own tensors are there
    once more.
    """
    costs = _costs(config)
    sizes = config.network(network)
    batch = facts_of(config, network, around)
    head = 0.0
    if network == "discriminator":
        head = total(costs.head_saved(config.model, network, batch))
    if config.train.activation_checkpointing:
        again = total(layer_saved(config, network, around))
    else:
        again = 0.0
    rises = costs.layer_rises(sizes, batch, varlen_temporaries(config, network, around))
    gradient = batch.tokens * sizes.hidden_size * batch.element_bytes
    return max(*(again + rise - head for rise in rises), gradient)


def varlen_temporaries(config: Config, network: Network, around: Surroundings) -> float:
    """Bytes in which the backward of FlashAttention-2 gathers the gradient of the queries, (T + 128
    N, A, D) in fp32.

    N as `config.sequence_entries` has it, for rows of `PLANNED_DOCUMENTS` documents, the padding
    counted.
    """
    if around.attention != "varlen":
        return 0.0
    size = micro_batch_sizes(config)
    sizes = config.network(network)
    most = config.data.max_documents_per_row
    entries = sequence_entries(PLANNED_DOCUMENTS * size.rows, size.rows, most)
    heads_size = sizes.heads * (-(-(sizes.hidden_size // sizes.heads) // 32) * 32)
    return (size.tokens + 128 * entries) * (heads_size + sizes.heads) * FP32


def head_temporaries(config: Config, vocab_size: int, around: Surroundings) -> float:
    """Bytes that the generator's head needs besides what it saves:
    chunks of logits, the gradient of the table.
    """
    size = micro_batch_sizes(config)
    embedding = config.model.embedding_size
    b = BYTES[config.precision_mode("generator")]
    table = vocab_size * (embedding + 1) * b
    hidden = size.masked * embedding * (FP32 + b)
    on_cuda = around.device == "cuda"
    if on_cuda and config.model.generator_head != "chunked":  # the fused kernel never holds logits
        return table + hidden
    if on_cuda:
        logits = HEAD_CHUNK_LOGITS_CUDA
    else:
        logits = HEAD_CHUNK_LOGITS
    entries = max(logits // max(size.masked, 1), HEAD_SMALLEST_CHUNK)
    return table + hidden + 2 * min(entries, vocab_size) * size.masked * FP32
