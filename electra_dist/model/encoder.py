"""The encoder: post-LayerNorm transformer layers, as in BERT and ELECTRA.

Comes in: embeddings (B, L, E) and the layout of the documents. Goes out: hidden states (B, L, H). Query, key and
value come out of one matrix; `huggingface.py` splits it.

`Layer.forward` has no data-dependent control flow, so that it compiles as one graph (DESIGN D4); DeepSpeed is told
that a layer is a leaf, so that its parameters are gathered around the call and not inside it.

Letters: B rows, L row length, E embedding, H hidden, A heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from electra_dist.config import ModelConfig, Network, NetworkConfig
from electra_dist.model.attention import BACKENDS, Layout, build_layout
from electra_dist.model.dropout import dropout, recomputed
from electra_dist.model.flat import FlatParameter, Slot, Weights, cut, keeping_no_view, take_over
from electra_dist.model.parameters import MATRICES, no_decay


class Layer(nn.Module):
    """Self-attention and feed-forward, each with dropout, residual and LayerNorm after it.

    `flat` is None until the weights are put into one flat parameter, beside which the biases and LayerNorms lie in one
    of the network (`flat.py`); `vector_slots` says where.
    """

    def __init__(self, config: ModelConfig, sizes: NetworkConfig, backend: str) -> None:
        super().__init__()
        hidden, epsilon = sizes.hidden_size, config.layer_norm_epsilon
        self.hidden_size = hidden
        self.heads = sizes.heads
        self.attend = BACKENDS[backend]
        self.attention_dropout = config.attention_dropout
        self.dropout = config.dropout
        self.epsilon = epsilon
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.ffn_in = nn.Linear(hidden, sizes.ffn_size)
        self.ffn_out = nn.Linear(sizes.ffn_size, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.flat: FlatParameter | None = None
        self.vector_slots: tuple[Slot, ...] = ()
        self.partitioned = False
        #: Whether the caller recomputes the layer in backward, so that nothing of its forward is kept.
        self.recomputed = False

    def flatten(self, partitioned: bool) -> None:
        """Put the four matrices into one flat parameter.

        `partitioned`: its memory is there only around a call of the layer, forward or backward (ZeRO-3).
        """
        self.flat = take_over(self, MATRICES, [name for name, _ in self.named_parameters() if not no_decay(name)])
        self.partitioned = partitioned

    def forward(self, hidden_blh: Tensor, layout: Layout, vectors: Tensor | None = None) -> Tensor:
        """One layer: (B, L, H) -> (B, L, H); `vectors` are its biases and LayerNorms where they lie elsewhere."""
        if self.flat is None or not self.partitioned or self.recomputed:
            return self.run(hidden_blh, layout, vectors)
        with keeping_no_view(self.flat.tensor):
            return self.run(hidden_blh, layout, vectors)

    def run(self, hidden_blh: Tensor, layout: Layout, vectors: Tensor | None) -> Tensor:
        """`forward`, as far as it is compiled."""
        weights = dict(self.named_parameters()) if self.flat is None else self.flat.views()
        if vectors is not None:
            weights |= cut(vectors, self.vector_slots)
        return self._compute(weights, hidden_blh, layout)

    def _compute(self, weights: Weights, hidden_blh: Tensor, layout: Layout) -> Tensor:
        b, length, hidden = hidden_blh.shape
        qkv = _linear(hidden_blh, weights, "query_key_value").view(b, length, 3, self.heads, hidden // self.heads)
        q_blad, k_blad, v_blad = qkv.unbind(2)
        attention_dropout = self.attention_dropout if self.training else 0.0
        attended = self.attend(q_blad, k_blad, v_blad, layout, attention_dropout).reshape(b, length, hidden)
        attended = dropout(_linear(attended, weights, "attention_output"), self.dropout, self.training)
        middle = self._norm(attended + hidden_blh, weights, "attention_norm")
        inner = _linear(middle, weights, "ffn_in")
        fed = recomputed(_activate, inner, weights["ffn_out.weight"], weights["ffn_out.bias"])
        return self._norm(dropout(fed, self.dropout, self.training) + middle, weights, "ffn_norm")

    def _norm(self, x: Tensor, weights: Weights, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], self.epsilon)


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _activate(inner_blf: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The second half of the feed-forward: exact (erf) GELU, then (B, L, F) -> (B, L, H)."""
    return F.linear(F.gelu(inner_blf), weight, bias)


class Encoder(nn.Module):
    """Embedding dropout, the projection where embedding and hidden size differ, and the layers.

    `backend` is the attention backend, as `choose_backend` returned it. With `activation_checkpointing` each layer is
    recomputed in backward.
    """

    def __init__(self, config: ModelConfig, network: Network, backend: str) -> None:
        super().__init__()
        sizes: NetworkConfig = getattr(config, network)
        self.backend = backend
        self.dropout = config.dropout
        self.random_layers = config.dropout > 0 or config.attention_dropout > 0
        self.activation_checkpointing = False
        self.project = (
            nn.Linear(config.embedding_size, sizes.hidden_size) if config.embedding_size != sizes.hidden_size else None
        )
        self.layers = nn.ModuleList(Layer(config, sizes, backend) for _ in range(sizes.layers))

    def forward(
        self,
        embeddings_ble: Tensor,
        documents_bl: Tensor,
        cu_seqlens: Tensor,
        vectors: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Hidden states of the last layer, (B, L, H); `vectors` as in `Layer.forward`, one for each layer."""
        layout = build_layout(documents_bl, cu_seqlens, self.backend, embeddings_ble.dtype)
        hidden = dropout(embeddings_ble, self.dropout, self.training)
        if self.project is not None:
            hidden = self.project(hidden)
        for layer, own in zip(self.layers, vectors or [None] * len(self.layers), strict=True):
            layer.recomputed = self.activation_checkpointing and self.training
            if layer.recomputed:
                hidden = checkpoint(layer, hidden, layout, own, use_reentrant=False, preserve_rng_state=self.random_layers)
            else:
                hidden = layer(hidden, layout, own)
        return hidden
