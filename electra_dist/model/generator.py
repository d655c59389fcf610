"""The generator: fills the masked positions, and owns the embeddings that the discriminator reads.

Comes in: a `ModelBatch`. Goes out: the losses of its objectives, the rows with each masked token
replaced by a sample, the labels of the discriminator, and the embedding activations of the replaced
rows (DESIGN D1).

The head runs on the masked slots only. Everything that reads the word embedding matrix happens
inside `forward` (DeepSpeed gathers it there, as an external parameter of this module).

Letters: B rows, L row length, P masked slots a row, M = B x P, E embedding, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra_dist.architectures import find_architecture
from electra_dist.config import ModelConfig
from electra_dist.model.encoder import Encoder
from electra_dist.model.flat.network import FlatNetwork, lent
from electra_dist.model.head import Backend, masked_lm_head
from electra_dist.model.inputs import ModelBatch
from electra_dist.model.looking import Look, look_at_masks
from electra_dist.model.parameters import initialise
from electra_dist.objectives import objectives_of
from electra_dist.objectives.views import Filled


class GeneratorOutput(NamedTuple):
    """What one micro-batch gives.

    loss_sums  (N,)       fp32, of the N objectives of the generator (nats)
    correct    ()         fp32, used slots whose most likely token is the original one
    in_top5    ()         fp32, used slots whose original token is among the five most likely ones
    corrupted  (B, L)     int64, the original rows with every used slot replaced by its sample
    replaced   (B, L)     fp32, 1 where `corrupted` differs from the original: the discriminator's
               labels
    shared     (B, L, E)  what the discriminator builds on: see `Generator.exchange`; None for
               sharing `none`
    look       of each of the M slots, where it was asked for
    """

    loss_sums: Tensor
    correct: Tensor
    in_top5: Tensor
    corrupted: Tensor
    replaced: Tensor
    shared: Tensor | None
    look: Look | None = None

    @property
    def loss_sum(self) -> Tensor:
        """That of the first objective: masked tokens."""
        return self.loss_sums[0]


class Generator(nn.Module):
    """Embeddings, encoder and masked-language-model head;
    parameters are unset until `initialise`.
    """

    compiled_parts = ("at_masks", "corrupt")

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        attention_backend: str,
        head_backend: Backend = "chunked",
    ) -> None:
        super().__init__()
        self.config = config
        self.head_backend = head_backend
        layers = find_architecture(config.architecture).layers()
        self.embeddings = layers.make_embeddings(config, vocab_size)
        self.encoder = Encoder(config, "generator", attention_backend)
        self.head = layers.make_generator_head(config)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        self.flat: FlatNetwork | None = None
        self.losses = tuple(objective.loss_sum for objective in objectives_of("generator"))

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
        """Set every parameter to its first value (see `parameters.py`)."""
        glorot = find_architecture(self.config.architecture).layers().GLOROT
        initialise(self, self.config.initializer_range, rng, glorot)
        self.output_bias.zero_()

    @torch.no_grad()
    def init_output_bias(self, log_frequencies: Tensor | npt.NDArray[np.floating]) -> None:
        """Start the output bias at the log frequency of each token, (V,), so that step 0 knows the
        unigrams.

        Raises ValueError for another length or for values that are not finite (smooth the counts
        first).
        """
        values = torch.as_tensor(log_frequencies, dtype=torch.float32)
        if values.shape != self.output_bias.shape or not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"expected {tuple(self.output_bias.shape)} finite log frequencies, got"
                f" {values.shape}"
            )
        self.output_bias.copy_(values)

    def encode(
        self, tokens_bl: Tensor, batch: ModelBatch, vectors: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Hidden states (B, L, H) of `tokens_bl` laid out as `batch`;
        `vectors` as in `Encoder.forward`.
        """
        embeddings = self.embeddings(tokens_bl, batch.positions)
        out: Tensor = self.encoder(embeddings, batch.documents, batch.cu_seqlens, vectors)
        return out

    def logits(self, batch: ModelBatch) -> Tensor:
        """Vocabulary logits (B, L, V) at every position of `batch.inputs`;
        training never needs them.
        """
        hidden = self.head(self.encode(batch.inputs, batch))
        return F.linear(hidden, self.embeddings.word.weight, self.output_bias)

    def exchange(self, tokens_bl: Tensor, positions_bl: Tensor) -> Tensor | None:
        """What the discriminator builds on, by `model.embedding_sharing`.

        shared: activations after LayerNorm, with gradient. disentangled: the sum before LayerNorm,
        without gradient. none: nothing.
        """
        if self.config.embedding_sharing == "shared":
            out: Tensor = self.embeddings(tokens_bl, positions_bl)
            return out
        if self.config.embedding_sharing == "disentangled":
            with torch.no_grad():
                return self.embeddings.sum(tokens_bl, positions_bl)
        return None

    def hidden_at_masks(self, batch: ModelBatch, vectors: Sequence[Tensor] | None = None) -> Tensor:
        """What the word embeddings are compared with at the masked slots:
        (M, E), unused slots included.
        """
        return self.at_masks(self.encode(batch.inputs, batch, vectors), batch.masked_positions)

    def at_masks(self, hidden_blh: Tensor, positions_bp: Tensor) -> Tensor:
        """The head over the hidden states at the masked slots: (M, E)."""
        at = positions_bp.unsqueeze(-1).expand(-1, -1, hidden_blh.shape[-1])
        out: Tensor = self.head(hidden_blh.gather(1, at).flatten(0, 1))
        return out

    def corrupt(
        self, tokens_bl: Tensor, positions_bp: Tensor, weights_bp: Tensor, samples_bp: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The original rows with each used slot set to its sample (B, L) int64, and where they
        differ (B, L) fp32.

        A sample that equals the original counts as original. Unused slots (weight 0) write into a
        column that is cut off again.
        """
        rows, length = tokens_bl.shape
        columns = torch.where(weights_bp > 0, positions_bp, length)
        wider = torch.cat([tokens_bl, tokens_bl.new_zeros(rows, 1)], dim=1)
        corrupted = wider.scatter(1, columns, samples_bp)[:, :length].contiguous()
        return corrupted, (corrupted != tokens_bl).float()

    def forward(
        self, batch: ModelBatch, forced_samples: Tensor | None = None, looks: bool = False
    ) -> GeneratorOutput:
        """One micro-batch; `forced_samples` (B, P)
        int64 takes the place of the samples (for tests), `looks` asks for a `Look`.
        """
        with lent(self.flat) as vectors:
            hidden_me = self.hidden_at_masks(batch, vectors)
            return self.fill(batch, hidden_me, forced_samples, looks)

    def fill(
        self,
        batch: ModelBatch,
        hidden_me: Tensor,
        forced_samples: Tensor | None = None,
        looks: bool = False,
    ) -> GeneratorOutput:
        """The second half of `forward`: loss, samples and corrupted rows from `hidden_at_masks`."""
        head = masked_lm_head(
            hidden_me,
            self.embeddings.word.weight,
            self.output_bias,
            batch.masked_targets.flatten(),
            batch.masked_keys.flatten(),
            self.config.temperature,
            self.head_backend,
        )
        weights_m = batch.masked_weights.flatten()
        filled = Filled(head.nll_m, weights_m)
        samples = head.samples_m.view_as(batch.masked_positions)
        if forced_samples is not None:
            samples = forced_samples
        corrupted, replaced = self.corrupt(
            batch.tokens, batch.masked_positions, batch.masked_weights, samples
        )
        look = None
        if looks:
            look = look_at_masks(
                hidden_me,
                self.embeddings.word.weight,
                self.output_bias,
                batch.masked_targets.flatten(),
                samples.flatten(),
            )
        return GeneratorOutput(
            loss_sums=torch.stack([loss_sum(filled) for loss_sum in self.losses]),
            correct=(head.correct_m * weights_m).sum().detach(),
            in_top5=(head.in_top5_m * weights_m).sum().detach(),
            corrupted=corrupted,
            replaced=replaced,
            shared=self.exchange(corrupted, batch.positions),
            look=look,
        )
