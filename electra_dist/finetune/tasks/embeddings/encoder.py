"""An encoder that makes one vector of each text, and its loss over pairs of texts.

Letters: B queries of a batch, C candidates of a batch, L tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import ModelOutput

from electra_dist.finetune.tasks.embeddings.pooling import Pooling


@dataclass
class Vectors(ModelOutput):
    """`vectors`: (B, H), one per text, or (B, K, H) of K layers."""

    vectors: Tensor | None = None


@dataclass
class PairLoss(ModelOutput):
    """The mean loss of a batch of pairs."""

    loss: Tensor | None = None


class SentenceEncoder(nn.Module):
    """An `ElectraModel` whose last hidden states are pooled.

    With model inputs it returns `Vectors`. With a batch of pairs, as `PairCollator` makes it, it
    returns the loss: contrastive where `excluded` is there, of scored pairs where it is not.
    """

    def __init__(self, electra: Any, pooling: Pooling, temperature: float = 0.05) -> None:
        super().__init__()
        self.electra = electra
        self.pooling = pooling
        self.temperature = temperature

    @property
    def config(self) -> Any:
        """That of the encoder."""
        return self.electra.config

    def save_pretrained(self, folder: Path) -> None:
        """The encoder alone, as `transformers.AutoModel` loads it."""
        self.electra.save_pretrained(folder)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        queries: Mapping[str, Tensor] | None = None,
        candidates: Mapping[str, Tensor] | None = None,
        targets: Tensor | None = None,
        excluded: Tensor | None = None,
    ) -> ModelOutput:
        """`targets` (B,): the candidate of each query, or the score of each pair."""
        if queries is None or candidates is None or targets is None:
            assert input_ids is not None
            assert attention_mask is not None
            return Vectors(vectors=self._vectors(input_ids, attention_mask, token_type_ids))
        queries_bh = F.normalize(self._vectors(**queries).float(), dim=-1)
        candidates_ch = F.normalize(self._vectors(**candidates).float(), dim=-1)
        if excluded is None:
            cosines_b = (queries_bh * candidates_ch).sum(dim=-1)
            return PairLoss(loss=scored_loss(cosines_b, targets, self.temperature))
        cosines_bc = queries_bh @ candidates_ch.T
        return PairLoss(loss=contrastive_loss(cosines_bc, targets, excluded, self.temperature))

    def _vectors(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        states_blh = self.electra(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        return pooled(states_blh, attention_mask, self.pooling)


class LayerEncoder(nn.Module):
    """The vectors of every layer of an `ElectraModel` at once, the embeddings first: (B, K, H)."""

    def __init__(self, electra: Any, pooling: Pooling) -> None:
        super().__init__()
        self._electra = electra
        self._pooling = pooling

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Vectors:
        """Of the texts whose tokens are given."""
        states = self._electra(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            output_hidden_states=True,
        ).hidden_states
        every = [pooled(states_blh, attention_mask, self._pooling) for states_blh in states]
        return Vectors(vectors=torch.stack(every, dim=1))


def pooled(states_blh: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector (B, H) per text; padding counts nothing."""
    if pooling.pool == "mean":
        weights_bl1 = attention_mask.unsqueeze(-1).to(states_blh.dtype)
        vectors_bh = (states_blh * weights_bl1).sum(dim=1) / weights_bl1.sum(dim=1)
    else:
        vectors_bh = states_blh[:, 0]
    if pooling.normalize:
        return F.normalize(vectors_bh, dim=-1)
    return vectors_bh


def contrastive_loss(
    cosines_bc: Tensor, targets_b: Tensor, excluded_bc: Tensor, temperature: float
) -> Tensor:
    """InfoNCE (arXiv 1807.03748) with the other texts of the batch as negatives: the cross-entropy
    of the right candidate under a softmax of cosine / temperature. `excluded` are candidates that
    are no negatives, for they are known to belong to the query too.
    """
    logits_bc = (cosines_bc / temperature).masked_fill(excluded_bc, -torch.inf)
    return F.cross_entropy(logits_bc, targets_b)


def scored_loss(cosines_b: Tensor, labels_b: Tensor, temperature: float) -> Tensor:
    """CoSENT (Su 2022, https://kexue.fm/archives/8847): log(1 + the sum of exp((cos_j - cos_i) /
    temperature) over all pairs i, j of the batch of which i has the higher label).
    """
    differences_ij = (cosines_b[None, :] - cosines_b[:, None]) / temperature
    in_order_ij = labels_b[:, None] > labels_b[None, :]
    wrong = differences_ij[in_order_ij]
    return torch.logsumexp(F.pad(wrong, (1, 0)), dim=0)
