"""ELECTRA's layers, embeddings and heads.

Query, key and value come out of one matrix; `names.py` splits it.

Letters: B rows, L row length, E embedding, H hidden, F feed-forward, A heads, D head size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from electra_dist.architectures.electra.costs import TOKEN_TYPES
from electra_dist.architectures.layers import (
    DiscriminatorHead,
    Embeddings,
    GeneratorHead,
    LayerRule,
    Tools,
    Weights,
)
from electra_dist.architectures.sizes import EncoderSizes, ModelSizes

#: The original leaves these at TensorFlow's default (`model/modeling.py`, `run_pretraining.py`).
GLOROT = ("head.prediction", "encoder.project")


class ElectraRule(LayerRule):
    """Self-attention and feed-forward, each with dropout, residual and LayerNorm after it."""

    def __init__(self, model: ModelSizes, sizes: EncoderSizes, tools: Tools) -> None:
        self.hidden_size = sizes.hidden_size
        self.ffn_size = sizes.ffn_size
        self.heads = sizes.heads
        self.epsilon = model.layer_norm_epsilon
        self.dropout = model.dropout
        self.attention_dropout = model.attention_dropout
        self.tools = tools

    def modules(self) -> dict[str, nn.Module]:
        """As in the base class."""
        hidden = self.hidden_size
        return {
            "query_key_value": nn.Linear(hidden, 3 * hidden),
            "attention_output": nn.Linear(hidden, hidden),
            "attention_norm": nn.LayerNorm(hidden, eps=self.epsilon),
            "ffn_in": nn.Linear(hidden, self.ffn_size),
            "ffn_out": nn.Linear(self.ffn_size, hidden),
            "ffn_norm": nn.LayerNorm(hidden, eps=self.epsilon),
        }

    def compute(self, weights: Weights, hidden_blh: Tensor, layout: Any, training: bool) -> Tensor:
        """As in the base class."""
        tools = self.tools
        b, length, hidden = hidden_blh.shape
        qkv = _linear(hidden_blh, weights, "query_key_value").view(
            b, length, 3, self.heads, hidden // self.heads
        )
        if training:
            attention_dropout = self.attention_dropout
        else:
            attention_dropout = 0.0
        attended = tools.attend(qkv, layout, attention_dropout).reshape(b, length, hidden)
        attended = tools.dropout(
            _linear(attended, weights, "attention_output"), self.dropout, training
        )
        middle = self._norm(attended + hidden_blh, weights, "attention_norm")
        inner = _linear(middle, weights, "ffn_in")
        fed = tools.recomputed(
            self.activate, inner, weights["ffn_out.weight"], weights["ffn_out.bias"]
        )
        return self._norm(tools.dropout(fed, self.dropout, training) + middle, weights, "ffn_norm")

    @staticmethod
    def activate(inner_blf: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The second half of the feed-forward: exact (erf) GELU, then (B, L, F) -> (B, L, H)."""
        return F.linear(F.gelu(inner_blf), weight, bias)

    def _norm(self, x: Tensor, weights: Weights, name: str) -> Tensor:
        return F.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], self.epsilon
        )


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


class ElectraEmbeddings(Embeddings):
    """Word, position and token-type tables with their LayerNorm.

    As in the original ELECTRA, [PAD] has an ordinary row: attention and losses never look at
    padding.
    """

    def __init__(self, model: ModelSizes, vocab_size: int) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab_size, model.embedding_size)
        self.position = nn.Embedding(model.max_positions, model.embedding_size)
        self.token_type = nn.Embedding(TOKEN_TYPES, model.embedding_size)
        self.norm = nn.LayerNorm(model.embedding_size, eps=model.layer_norm_epsilon)

    def sum(self, tokens_bl: Tensor, positions_bl: Tensor) -> Tensor:
        """Word + token type 0 + position, before LayerNorm: (B, L, E)."""
        # (1, E); through the module, where ZeRO-3 gathers it
        first_type = self.token_type(tokens_bl.new_zeros(1))
        out: Tensor = self.word(tokens_bl) + first_type + self.position(positions_bl)
        return out


class ElectraGeneratorHead(GeneratorHead):
    """Linear to the embedding size, GELU, LayerNorm; the word embeddings come after it."""

    def __init__(self, model: ModelSizes) -> None:
        super().__init__()
        self.dense = nn.Linear(model.generator.hidden_size, model.embedding_size)
        self.norm = nn.LayerNorm(model.embedding_size, eps=model.layer_norm_epsilon)

    def forward(self, hidden_mh: Tensor) -> Tensor:
        """(..., H) -> (..., E)."""
        out: Tensor = self.norm(F.gelu(self.dense(hidden_mh)))
        return out


class ElectraDiscriminatorHead(DiscriminatorHead):
    """Linear, GELU, linear to one logit."""

    def __init__(self, model: ModelSizes) -> None:
        super().__init__()
        hidden = model.discriminator.hidden_size
        self.dense = nn.Linear(hidden, hidden)
        self.prediction = nn.Linear(hidden, 1)

    def forward(self, hidden_blh: Tensor) -> Tensor:
        """(B, L, H) -> (B, L)."""
        out: Tensor = self.prediction(F.gelu(self.dense(hidden_blh))).squeeze(-1)
        return out


make_rule = ElectraRule
make_embeddings = ElectraEmbeddings
make_generator_head = ElectraGeneratorHead
make_discriminator_head = ElectraDiscriminatorHead
