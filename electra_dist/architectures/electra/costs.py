"""What ELECTRA's layers, embeddings and heads cost: shapes, operations, saved activations.

Counted operation by operation, as without compilation; layers compiled for a CPU, which keep less,
are told apart where they have dropout.

Letters: T tokens, M masked slots, H hidden, F feed-forward, E embedding, V vocabulary, P positions.
"""

from __future__ import annotations

from electra_dist.architectures.costs import MicroBatchFacts, Saved
from electra_dist.architectures.sizes import EncoderSizes, ModelSizes, Network, Shapes

#: As published; pre-training uses type 0 only, fine-tuning on pairs uses both.
TOKEN_TYPES = 2
_BOOL = 1


def layer_shapes(sizes: EncoderSizes) -> Shapes:
    """Four matrices with their biases, and two LayerNorms."""
    hidden = sizes.hidden_size
    ffn = sizes.ffn_size
    return {
        **_linear("query_key_value", 3 * hidden, hidden),
        **_linear("attention_output", hidden, hidden),
        **_norm("attention_norm", hidden),
        **_linear("ffn_in", ffn, hidden),
        **_linear("ffn_out", hidden, ffn),
        **_norm("ffn_norm", hidden),
    }


def embedding_shapes(model: ModelSizes, vocab_size: int) -> Shapes:
    """Word, position and token-type tables and their LayerNorm."""
    size = model.embedding_size
    return {
        "word.weight": (vocab_size, size),
        "position.weight": (model.max_positions, size),
        "token_type.weight": (TOKEN_TYPES, size),
        **_norm("norm", size),
    }


def head_shapes(model: ModelSizes, network: Network) -> Shapes:
    """Generator: a linear and LayerNorm; discriminator: two linears."""
    size = model.embedding_size
    if network == "generator":
        return {**_linear("dense", size, model.generator.hidden_size), **_norm("norm", size)}
    hidden = model.discriminator.hidden_size
    return {**_linear("dense", hidden, hidden), **_linear("prediction", 1, hidden)}


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def score_flops(sizes: EncoderSizes, squared_lengths: int) -> float:
    """Every layer attends to the whole document: H products for a score, H for a value."""
    return 4.0 * sizes.layers * sizes.hidden_size * squared_lengths


# --- activations ----------------------------------------------------------------------------------


def layer_saved(sizes: EncoderSizes, batch: MicroBatchFacts) -> list[Saved]:
    """Both LayerNorms with what they read, and the feed-forward part."""
    b = batch.element_bytes
    hidden = batch.tokens * sizes.hidden_size * b
    ffn = batch.tokens * sizes.ffn_size * b
    # mean and reciprocal deviation
    statistics = 2 * batch.tokens * batch.statistics_bytes
    saved = [
        Saved("attention output + residual, read by LayerNorm", hidden),
        Saved("LayerNorm after attention", hidden + statistics),
        Saved("feed-forward in, read by GELU", ffn),
        Saved("GELU, read by feed-forward out", 0.0 if batch.around.recomputes else ffn),
        Saved("feed-forward out + residual, read by LayerNorm", hidden),
        Saved("LayerNorm after feed-forward", hidden + statistics),
    ]
    if batch.dropout and not batch.around.hashes_masks:
        saved += [Saved("dropout masks", 2 * hidden / b * _BOOL)]
    return saved


def layer_rises(
    sizes: EncoderSizes, batch: MicroBatchFacts, attention_bytes: float
) -> tuple[float, ...]:
    """In the feed-forward's product, and in attention.

    Entering the backward, the gradient of the layer's output is there. In the feed-forward's
    product it holds the gradients of the residual (H) and of GELU (F) as well (and GELU's output
    where it is computed again), and has let go of the last LayerNorm's input and output. Later, in
    attention, the gradients of query, key and value, of the attended values and of the residual are
    there; the feed-forward's tensors, both LayerNorms' and the attention output are gone.
    """
    b = batch.element_bytes
    hidden = batch.tokens * sizes.hidden_size * b
    ffn = batch.tokens * sizes.ffn_size * b
    mask = hidden / b * _BOOL
    if batch.around.hashes_masks:
        mask = 0.0
    # its gradient instead of the saved mask
    if batch.dropout:
        dropped = hidden - mask
    else:
        dropped = 0.0
    of_ffn = ffn * (2 if batch.around.recomputes else 1)
    in_feed_forward = of_ffn + hidden + dropped - 2 * hidden
    in_attention = attention_bytes + 5 * hidden - 2 * ffn - 5 * hidden
    return in_feed_forward, in_attention


def embeddings_saved(model: ModelSizes, batch: MicroBatchFacts) -> list[Saved]:
    """What LayerNorm reads and gives."""
    table = batch.tokens * model.embedding_size * batch.element_bytes
    return [Saved("embedding sum and LayerNorm", 2 * table)]


def head_saved(model: ModelSizes, network: Network, batch: MicroBatchFacts) -> list[Saved]:
    """On the masked slots, or on every token."""
    b = batch.element_bytes
    if network == "generator":
        width = model.generator.hidden_size + 3 * model.embedding_size
        return [Saved("masked positions: gather, dense, GELU, LayerNorm", batch.masked * width * b)]
    hidden = model.discriminator.hidden_size
    return [Saved("head: dense and GELU", 2 * batch.tokens * hidden * b)]
