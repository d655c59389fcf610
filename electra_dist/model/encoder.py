"""The encoder: the layers of an architecture, one after the other.

Comes in: embeddings (B, L, E) and the layout of the documents. Goes out: hidden states (B, L, H).
What a layer computes is the architecture's (`architectures/layers.py`); here it is run.

`Layer.forward` has no data-dependent control flow, so that it compiles as one graph (DESIGN D4). In
an engine consecutive layers are a `LayerGroup`, which DeepSpeed is told is a leaf: its parameters
are gathered around the call.

Letters: B rows, L row length, E embedding, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from electra_dist.architectures import find_architecture
from electra_dist.architectures.layers import Tools, Weights
from electra_dist.config import ModelConfig, Network, NetworkConfig
from electra_dist.model.attention.backends import BACKENDS, Layout, build_layout
from electra_dist.model.dropout import dropout, recomputed
from electra_dist.model.flat.slots import cut, keeping_no_view, lay_out
from electra_dist.model.parameters import no_decay


class Layer(nn.Module):
    """One layer of the architecture: its parameters, in modules or in flat ones.

    `rule` is the arithmetic. `matrix_slots` and `vector_slots` say how its parameters lie where
    they are parts of flat ones (`flat/network.py`).
    """

    compiled_parts = ("forward",)

    def __init__(self, config: ModelConfig, sizes: NetworkConfig, backend: str) -> None:
        super().__init__()
        tools = Tools(BACKENDS[backend], dropout, recomputed)
        self.hidden_size = sizes.hidden_size
        self.rule = find_architecture(config.architecture).layers().make_rule(config, sizes, tools)
        for name, module in self.rule.modules().items():
            self.add_module(name, module)
        parameters = list(self.named_parameters())
        self.matrix_slots = lay_out(pair for pair in parameters if not no_decay(pair[0]))
        self.vector_slots = lay_out(pair for pair in parameters if no_decay(pair[0]))

    def forward(
        self,
        hidden_blh: Tensor,
        layout: Layout,
        matrices: Tensor | None = None,
        vectors: Tensor | None = None,
    ) -> Tensor:
        """One layer: (B, L, H) -> (B, L, H); `matrices` and `vectors`,
        flat, take the place of its parameters.
        """
        if matrices is None or vectors is None:
            weights: Weights = dict(self.named_parameters())
        else:
            weights = cut(matrices, self.matrix_slots) | cut(vectors, self.vector_slots)
        return self.rule.compute(weights, hidden_blh, layout, self.training)


class LayerGroup(nn.Module):
    """Consecutive layers whose weights are one flat parameter, `matrices`.

    The layers themselves are no submodules: they have no parameter left. With `partitioned` nothing
    may keep the memory of `matrices` between forward and backward (ZeRO-3).
    """

    def __init__(self, layers: Sequence[Layer], partitioned: bool) -> None:
        super().__init__()
        self.layers = list(layers)
        self.partitioned = partitioned

    def train(self, mode: bool = True) -> LayerGroup:
        """As in `nn.Module`."""
        super().train(mode)
        for layer in self.layers:
            layer.train(mode)
        return self

    def forward(
        self, hidden_blh: Tensor, layout: Layout, vectors: Tensor, recompute: Recompute | None
    ) -> Tensor:
        """All of them: (B, L, H) -> (B, L, H); `vectors` are theirs, one behind the other."""
        matrices = self.get_parameter("matrices")
        with keeping_no_view(matrices) if self.partitioned else nullcontext():
            parts = zip(
                matrices.chunk(len(self.layers)), vectors.chunk(len(self.layers)), strict=True
            )
            for layer, part in zip(self.layers, parts, strict=True):
                # DeepSpeed gives the first one a view.
                # One compiled layer serves all only if all get one.
                hidden_blh = run_layer(
                    layer, hidden_blh.view_as(hidden_blh), layout, recompute, *part
                )
        return hidden_blh


class Recompute(NamedTuple):
    """Layers are computed again in backward; `random`: with the same random numbers."""

    random: bool


def run_layer(
    layer: nn.Module,
    hidden_blh: Tensor,
    layout: Layout,
    recompute: Recompute | None,
    *parts: Tensor,
) -> Tensor:
    """`Layer.forward`, with its activations kept for backward or not."""
    if recompute is None:
        out: Tensor = layer(hidden_blh, layout, *parts)
    else:
        out = checkpoint(
            layer,
            hidden_blh,
            layout,
            *parts,
            use_reentrant=False,
            preserve_rng_state=recompute.random,
        )
    return out


class Encoder(nn.Module):
    """Embedding dropout, the projection where embedding and hidden size differ, and the layers.

    `groups` are the layers again, once they are grouped (`flat/network.py`).

    `backend` is the attention backend, as `choose_backend` returned it. With
    `activation_checkpointing` each layer is recomputed in backward.
    """

    compiled_parts = ("enter",)

    def __init__(self, config: ModelConfig, network: Network, backend: str) -> None:
        super().__init__()
        sizes: NetworkConfig = getattr(config, network)
        self.backend = backend
        self.dropout = config.dropout
        self.random_layers = config.dropout > 0 or config.attention_dropout > 0
        self.activation_checkpointing = False
        self.project: nn.Linear | None = None
        if config.embedding_size != sizes.hidden_size:
            self.project = nn.Linear(config.embedding_size, sizes.hidden_size)
        self.layers = nn.ModuleList(Layer(config, sizes, backend) for _ in range(sizes.layers))
        self.groups = nn.ModuleList()

    def forward(
        self,
        embeddings_ble: Tensor,
        documents_bl: Tensor,
        cu_seqlens: Tensor,
        vectors: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states of the last layer, (B, L, H);
        `vectors` are those of each group, where there are groups.
        """
        layout = build_layout(documents_bl, cu_seqlens, self.backend, embeddings_ble.dtype)
        hidden = self.enter(embeddings_ble)
        if self.activation_checkpointing and self.training:
            recompute = Recompute(self.random_layers)
        else:
            recompute = None
        if vectors is None:
            for layer in self.layers:
                hidden = run_layer(layer, hidden, layout, recompute)
            return hidden
        for group, own in zip(self.groups, vectors, strict=True):
            hidden = group(hidden, layout, own, recompute)
        return hidden

    def enter(self, embeddings_ble: Tensor) -> Tensor:
        """What the first layer reads: (B, L, E) -> (B, L, H)."""
        hidden: Tensor = dropout(embeddings_ble, self.dropout, self.training)
        if self.project is not None:
            hidden = self.project(hidden)
        return hidden
