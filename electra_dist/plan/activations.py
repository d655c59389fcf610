"""What one micro-batch keeps between forward and backward: every tensor that autograd saves, by
name.

Comes in: sizes, and what the machine runs (`Surroundings`). Goes out: lists of (name, bytes) for
the generator, the discriminator and what passes between them, and the temporaries of the backward
of one layer. Counted operation by operation, as without compilation; layers compiled for a CPU,
which keep less, are told apart where they have dropout.

Letters: B rows, L row length, T = B x L tokens, M masked slots, H hidden, F feed-forward, E
embedding, A heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

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


class Saved(NamedTuple):
    """One saved tensor, or several alike."""

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


def layer_saved(config: Config, network: Network, around: Surroundings) -> list[Saved]:
    """What one encoder layer saves, without checkpointing;
    its input is its predecessor's output, counted there.
    """
    size = micro_batch_sizes(config)
    model = config.model
    sizes = config.network(network)
    b = BYTES[config.precision_mode(network)]
    hidden = size.tokens * sizes.hidden_size * b
    ffn = size.tokens * sizes.ffn_size * b
    # mean and reciprocal deviation
    statistics = 2 * size.tokens * (b if around.device == "cpu" else FP32)
    saved = attention_saved(config, network, around)
    saved += [
        Saved("attention output + residual, read by LayerNorm", hidden),
        Saved("LayerNorm after attention", hidden + statistics),
        Saved("feed-forward in, read by GELU", ffn),
        Saved("GELU, read by feed-forward out", 0.0 if around.recomputes else ffn),
        Saved("feed-forward out + residual, read by LayerNorm", hidden),
        Saved("LayerNorm after feed-forward", hidden + statistics),
    ]
    if model.dropout and not around.hashes_masks:
        saved += [Saved("dropout masks", 2 * hidden / b * BOOL)]
    return saved


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
    embedding = config.model.embedding_size
    b = BYTES[config.precision_mode("generator")]
    hidden = config.model.generator.hidden_size
    saved = [Saved("embedding sum and LayerNorm", 2 * size.tokens * embedding * b)]
    saved += encoder_saved(config, "generator", around)
    saved.append(
        Saved(
            "masked positions: gather, dense, GELU, LayerNorm",
            size.masked * (hidden + 3 * embedding) * b,
        )
    )
    if config.model.embedding_sharing == "shared":
        saved.append(Saved("shared embeddings: sum and LayerNorm", 2 * size.tokens * embedding * b))
    elif config.model.embedding_sharing == "disentangled":
        saved.append(Saved("shared embedding sum", size.tokens * embedding * b))
    saved.append(Saved("batch: ids, positions, labels", size.tokens * (4 * INT64 + 3 * FP32)))
    return saved


def discriminator_saved(config: Config, around: Surroundings) -> list[Saved]:
    """The discriminator: encoder and head, and embeddings of its own where it has them."""
    size = micro_batch_sizes(config)
    embedding = config.model.embedding_size
    b = BYTES[config.precision_mode("discriminator")]
    hidden = config.model.discriminator.hidden_size
    saved = encoder_saved(config, "discriminator", around)
    if config.model.embedding_sharing != "shared":
        saved.append(Saved("embedding sum and LayerNorm", 2 * size.tokens * embedding * b))
    saved.append(Saved("head: dense and GELU", 2 * size.tokens * hidden * b))
    return saved


def backward_temporaries(config: Config, network: Network, around: Surroundings) -> float:
    """Bytes by which the backward of the last layer rises above what was saved.

    Entering it, the head's saved tensors are gone and the gradient of the layer's output is there;
    at its highest, in the feed-forward's product, it holds the gradients of the residual (H) and of
    GELU (F) as well (and GELU's output where it is computed again), and has let go of the last
    LayerNorm's input and output. With checkpointing, the layer's own tensors are there once more.
    """
    size = micro_batch_sizes(config)
    sizes = config.network(network)
    b = BYTES[config.precision_mode(network)]
    hidden = size.tokens * sizes.hidden_size * b
    ffn = size.tokens * sizes.ffn_size * b
    head = 0.0
    if network == "discriminator":
        head = 2 * hidden
    mask = hidden / b * BOOL
    if around.hashes_masks:
        mask = 0.0
    # its gradient instead of the saved mask
    if config.model.dropout:
        dropped = hidden - mask
    else:
        dropped = 0.0
    if config.train.activation_checkpointing:
        again = total(layer_saved(config, network, around))
    else:
        again = 0.0
    rise = again + ffn * (2 if around.recomputes else 1) + hidden + dropped - 2 * hidden
    # Later, in attention: gradients of query, key and value, of the attended values and of the
    # residual are there; the feed-forward's tensors, both LayerNorms' and the attention output are
    # gone.
    later = again + varlen_temporaries(config, network, around) + 5 * hidden - 2 * ffn - 5 * hidden
    return max(rise - head, later - head, hidden)


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
