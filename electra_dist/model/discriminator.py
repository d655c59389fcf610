"""The discriminator: says of every token whether the generator replaced it.

Comes in: the corrupted rows, their labels, and what the generator shares (`Generator.exchange`).
Goes out: the loss sums of its objectives, and the logits.

Letters: B rows, L row length, E embedding, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from electra_dist.architectures import find_architecture
from electra_dist.architectures.layers import Embeddings
from electra_dist.batch import PADDING_DOCUMENT
from electra_dist.config import ModelConfig
from electra_dist.model.encoder import Encoder
from electra_dist.model.flat.network import FlatNetwork, lent
from electra_dist.model.inputs import ModelBatch
from electra_dist.model.parameters import initialise
from electra_dist.objectives import objectives_of
from electra_dist.objectives.views import Judged


class DiscriminatorOutput(NamedTuple):
    """What one micro-batch gives.

    loss_sums  (N,)    fp32, of the N objectives of the discriminator (nats)
    logits     (B, L)  fp32, without gradient; above 0 means "replaced"
    """

    loss_sums: Tensor
    logits: Tensor

    @property
    def loss_sum(self) -> Tensor:
        """That of the first objective: replaced tokens."""
        return self.loss_sums[0]


class Discriminator(nn.Module):
    """Encoder and replaced-token head; parameters are unset until `initialise`.

    `embeddings` are its own ones (sharing `none`); `deltas` are what it adds to the generator's
    (`disentangled`).
    """

    compiled_parts = ("judge",)

    def __init__(self, config: ModelConfig, vocab_size: int, attention_backend: str) -> None:
        super().__init__()
        self.config = config
        layers = find_architecture(config.architecture).layers()
        sharing = config.embedding_sharing
        self.embeddings: Embeddings | None = None
        if sharing == "none":
            self.embeddings = layers.make_embeddings(config, vocab_size)
        self.deltas: Embeddings | None = None
        if sharing == "disentangled":
            self.deltas = layers.make_embeddings(config, vocab_size)
        self.encoder = Encoder(config, "discriminator", attention_backend)
        self.head = layers.make_discriminator_head(config)
        self.flat: FlatNetwork | None = None
        self.losses = tuple(objective.loss_sum for objective in objectives_of("discriminator"))

    @property
    def attention_backend(self) -> str:
        """The attention backend in use."""
        return self.encoder.backend

    def flatten(self, partitioned: bool) -> None:
        """Put the parameters into few flat ones (`flat/network.py`);
        afterwards only `forward` computes.
        """
        self.flat = FlatNetwork(self, partitioned)

    @torch.no_grad()
    def initialise(self, rng: torch.Generator) -> None:
        """Set every parameter to its first value (see `parameters.py`); deltas start at zero."""
        glorot = find_architecture(self.config.architecture).layers().GLOROT
        initialise(self, self.config.initializer_range, rng, glorot)
        if self.deltas is not None:
            for module in self.deltas.modules():
                if isinstance(module, nn.Embedding):
                    module.weight.zero_()

    def embed(self, shared_ble: Tensor | None, tokens_bl: Tensor, positions_bl: Tensor) -> Tensor:
        """Embedding activations after LayerNorm, (B, L, E), in this network's dtype."""
        if self.embeddings is not None:
            out: Tensor = self.embeddings(tokens_bl, positions_bl)
            return out
        if shared_ble is None:
            raise ValueError(
                f"embedding_sharing = {self.config.embedding_sharing} needs the generator's"
                " embeddings"
            )
        # Stage 3 has the flat parameters, whose memory is elsewhere, in the same dtype.
        shared = shared_ble.to(next(self.parameters()).dtype)
        if self.deltas is None:
            return shared
        normed: Tensor = self.deltas.norm(shared + self.deltas.sum(tokens_bl, positions_bl))
        return normed

    def encode(
        self,
        shared_ble: Tensor | None,
        tokens_bl: Tensor,
        batch: ModelBatch,
        vectors: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states (B, L, H) of `tokens_bl` laid out as `batch`;
        `vectors` as in `Encoder.forward`.
        """
        embeddings = self.embed(shared_ble, tokens_bl, batch.positions)
        out: Tensor = self.encoder(embeddings, batch.documents, batch.cu_seqlens, vectors)
        return out

    def forward(
        self, shared: Tensor | None, batch: ModelBatch, corrupted: Tensor, replaced: Tensor
    ) -> DiscriminatorOutput:
        """One micro-batch: `shared` (B, L, E) or None, `corrupted` (B,
        L) int64, `replaced` (B, L) fp32.
        """
        with lent(self.flat) as vectors:
            hidden = self.encode(shared, corrupted, batch, vectors)
            return DiscriminatorOutput(*self.judge(hidden, replaced, batch.documents))

    def judge(
        self, hidden_blh: Tensor, replaced_bl: Tensor, documents_bl: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss sums of the objectives (N,), and the logits (B, L) without gradient."""
        logits_bl = self.head(hidden_blh).float()
        judged = Judged(logits_bl, replaced_bl, documents_bl != PADDING_DOCUMENT)
        losses_n = torch.stack([loss_sum(judged) for loss_sum in self.losses])
        return losses_n, logits_bl.detach()
