"""What the generator says of the masked positions beyond what training needs: for evaluations and
for samples that people read.

Comes in: the hidden states at the masked slots, the word embeddings, the targets, the samples. Goes
out: a `Look`.

Letters: M masked slots, unused ones included; V vocabulary, E embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Logits that are held at a time.
_CHUNK_LOGITS = 2**25


class Look(NamedTuple):
    """Of each masked slot, at temperature 1.

    nll_m          (M,) fp32   negative log-likelihood of the target (nats)
    rank_m         (M,) int64  entries of the vocabulary that are more likely than the target
    probability_m  (M,) fp32   of the sample
    likeliest_m    (M,) int64  the most likely entry; the target where none is more likely
    """

    nll_m: Tensor
    rank_m: Tensor
    probability_m: Tensor
    likeliest_m: Tensor


@torch.no_grad()
def look_at_masks(
    hidden_me: Tensor, words_ve: Tensor, bias_v: Tensor, targets_m: Tensor, samples_m: Tensor
) -> Look:
    """The look of the generator; never holds the whole (M, V) matrix of a large vocabulary."""
    size = max(1, _CHUNK_LOGITS // words_ve.shape[0])
    parts = []
    for hidden, targets, samples in zip(
        *(tensor.split(size) for tensor in (hidden_me, targets_m.long(), samples_m)), strict=True
    ):
        logits_mv = F.linear(hidden, words_ve, bias_v).float()
        log_sum_m = logits_mv.logsumexp(dim=1)
        target_m = logits_mv.gather(1, targets[:, None])
        sample_m = logits_mv.gather(1, samples[:, None])[:, 0]
        rank_m = (logits_mv > target_m).sum(dim=1)
        parts.append(
            Look(
                nll_m=log_sum_m - target_m[:, 0],
                rank_m=rank_m,
                probability_m=(sample_m - log_sum_m).exp(),
                likeliest_m=torch.where(rank_m == 0, targets, logits_mv.argmax(dim=1)),
            )
        )
    return Look(*(torch.cat(column) for column in zip(*parts, strict=True)))
