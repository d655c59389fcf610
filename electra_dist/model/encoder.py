"""The encoder: post-LayerNorm transformer layers, as in BERT and ELECTRA.

Comes in: embeddings (B, L, E) and the layout of the documents. Goes out: hidden states (B, L, H). Query, key and
value come out of one matrix; `huggingface.py` splits it.

`Layer.forward` has no data-dependent control flow, so that it compiles as one graph (DESIGN D4); DeepSpeed is told
that a layer is a leaf, so that its parameters are gathered around the call and not inside it.

Letters: B rows, L row length, E embedding, H hidden, A heads, D head size.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from electra_dist.config import ModelConfig, Network, NetworkConfig
from electra_dist.model.attention import BACKENDS, Layout, build_layout
from electra_dist.model.dropout import dropout, recomputed


class Layer(nn.Module):
    """Self-attention and feed-forward, each with dropout, residual and LayerNorm after it."""

    def __init__(self, config: ModelConfig, sizes: NetworkConfig, backend: str) -> None:
        super().__init__()
        hidden, epsilon = sizes.hidden_size, config.layer_norm_epsilon
        self.heads = sizes.heads
        self.attend = BACKENDS[backend]
        self.attention_dropout = config.attention_dropout
        self.dropout = config.dropout
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.ffn_in = nn.Linear(hidden, sizes.ffn_size)
        self.ffn_out = nn.Linear(sizes.ffn_size, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps=epsilon)

    def forward(self, hidden_blh: Tensor, layout: Layout) -> Tensor:
        """One layer: (B, L, H) -> (B, L, H)."""
        b, length, hidden = hidden_blh.shape
        qkv = self.query_key_value(hidden_blh).view(b, length, 3, self.heads, hidden // self.heads)
        attention_dropout = self.attention_dropout if self.training else 0.0
        attended = self.attend(qkv, layout, attention_dropout).reshape(b, length, hidden)
        attended = dropout(self.attention_output(attended), self.dropout, self.training)
        middle = self.attention_norm(attended + hidden_blh)
        fed = recomputed(self._activate, self.ffn_in(middle))
        out: Tensor = self.ffn_norm(dropout(fed, self.dropout, self.training) + middle)
        return out

    def _activate(self, inner_blf: Tensor) -> Tensor:
        """The second half of the feed-forward: exact (erf) GELU, then (B, L, F) -> (B, L, H)."""
        out: Tensor = self.ffn_out(F.gelu(inner_blf))
        return out


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

    def forward(self, embeddings_ble: Tensor, documents_bl: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Hidden states of the last layer, (B, L, H)."""
        layout = build_layout(documents_bl, cu_seqlens, self.backend, embeddings_ble.dtype)
        hidden = dropout(embeddings_ble, self.dropout, self.training)
        if self.project is not None:
            hidden = self.project(hidden)
        for layer in self.layers:
            if self.activation_checkpointing and self.training:
                hidden = checkpoint(layer, hidden, layout, use_reentrant=False, preserve_rng_state=self.random_layers)
            else:
                hidden = layer(hidden, layout)
        return hidden
