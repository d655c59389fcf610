"""Both networks over held-out rows, once: the trainer's own sums, and what each masked and each
judged token got.

Comes in: the networks, micro-batches. Goes out: `Observed`, flat arrays in the order of the rows.
The forward passes are those of a validation in training, in fp32: same rows, masks and sampling
keys, so the same numbers.

Letters: M used masked slots, T real tokens, V vocabulary, E embedding; B rows, L row length, P
masked slots a row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from electra_dist.batch import PADDING_DOCUMENT
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.inputs import ModelBatch
from electra_dist.train.step import StepTotals, micro_batch_totals

#: Logits that are held at a time.
_CHUNK_LOGITS = 2**25


class Networks(NamedTuple):
    """Both networks, on one device and in evaluation mode."""

    generator: Generator
    discriminator: Discriminator


@dataclass(frozen=True)
class Observed:
    """What the networks said, token by token; padding and unused slots are left out.

    masked_rows         (M,) int32    number of the row that each masked position is in
    targets             (M,) int32    original token at each masked position
    nll                 (M,) float32  negative log-likelihood of it (nats)
    rank                (M,) int32    entries of the vocabulary that the generator holds more likely
                        than it
    samples             (M,) int32    token that the generator put there
    sample_probability  (M,) float32  the generator's probability of that token, at temperature 1
    masked_logits       (M,) float32  the discriminator's logit at the position
    token_rows          (T,) int32    number of the row that each real token is in
    shown               (T,) int32    token that the discriminator reads at each real position
    logits              (T,) float32  its logit; above 0 means "replaced"
    replaced            (T,) bool     whether the token is not the original one
    """

    masked_rows: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    nll: npt.NDArray[np.float32]
    rank: npt.NDArray[np.int32]
    samples: npt.NDArray[np.int32]
    sample_probability: npt.NDArray[np.float32]
    masked_logits: npt.NDArray[np.float32]
    token_rows: npt.NDArray[np.int32]
    shown: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float32]
    replaced: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: list[Observed]) -> Observed:
        """All parts, one after the other."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )

    def of_rows(self, first: int, end: int) -> Observed:
        """What is said of the rows from `first` to before `end`, which are numbered from 0 then.

        The rows are in ascending order, as `judge` and `joined` leave them.
        """
        masked = slice(*np.searchsorted(self.masked_rows, (first, end)))
        real = slice(*np.searchsorted(self.token_rows, (first, end)))
        return Observed(
            masked_rows=self.masked_rows[masked] - np.int32(first),
            targets=self.targets[masked],
            nll=self.nll[masked],
            rank=self.rank[masked],
            samples=self.samples[masked],
            sample_probability=self.sample_probability[masked],
            masked_logits=self.masked_logits[masked],
            token_rows=self.token_rows[real] - np.int32(first),
            shown=self.shown[real],
            logits=self.logits[real],
            replaced=self.replaced[real],
        )


class Judged(NamedTuple):
    """One micro-batch: its sums, its tokens,
    and for passages to read the corrupted rows and logits, (B, L).
    """

    totals: StepTotals
    observed: Observed
    corrupted: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


@torch.no_grad()
def judge(networks: Networks, batch: ModelBatch, first_row: int = 0) -> Judged:
    """Run both networks over one micro-batch, whose rows are numbered from `first_row` on."""
    generator, discriminator = networks
    hidden_me = generator.hidden_at_masks(batch)
    generated = generator.fill(batch, hidden_me)
    output = discriminator(generated.shared, batch, generated.corrupted, generated.replaced)
    used = batch.masked_weights.flatten() > 0
    samples_m = generated.corrupted.gather(1, batch.masked_positions).flatten()[used]
    targets_m = batch.masked_targets.flatten()[used]
    nll_m, rank_m, probability_m = _generator_view(generator, hidden_me[used], targets_m, samples_m)
    real = batch.documents != PADDING_DOCUMENT
    row_b = torch.arange(first_row, first_row + len(real), device=real.device)[:, None]
    observed = Observed(
        masked_rows=_host(row_b.expand_as(batch.masked_positions).flatten()[used], np.int32),
        targets=_host(targets_m, np.int32),
        nll=_host(nll_m, np.float32),
        rank=_host(rank_m, np.int32),
        samples=_host(samples_m, np.int32),
        sample_probability=_host(probability_m, np.float32),
        masked_logits=_host(
            output.logits.gather(1, batch.masked_positions).flatten()[used], np.float32
        ),
        token_rows=_host(row_b.expand_as(real)[real], np.int32),
        shown=_host(generated.corrupted[real], np.int32),
        logits=_host(output.logits[real], np.float32),
        replaced=_host(generated.replaced[real] > 0, np.bool_),
    )
    return Judged(
        micro_batch_totals(batch, generated, output),
        observed,
        _host(generated.corrupted, np.int64),
        _host(output.logits, np.float32),
    )


def _generator_view(
    generator: Generator, hidden_me: Tensor, targets_m: Tensor, samples_m: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(M,) each: negative log-likelihood and rank of the target, probability of the sample."""
    words_ve = generator.embeddings.word.weight
    bias_v = generator.output_bias
    size = max(1, _CHUNK_LOGITS // words_ve.shape[0])
    parts = []
    for hidden, targets, samples in zip(
        *(t.split(size) for t in (hidden_me, targets_m, samples_m)), strict=True
    ):
        logits_mv = F.linear(hidden, words_ve, bias_v)
        log_sum_m = logits_mv.logsumexp(dim=1)
        target_m = logits_mv.gather(1, targets[:, None])
        sample_m = logits_mv.gather(1, samples[:, None])[:, 0]
        parts.append(
            (
                log_sum_m - target_m[:, 0],
                (logits_mv > target_m).sum(dim=1),
                (sample_m - log_sum_m).exp(),
            )
        )
    nll_m, rank_m, probability_m = (torch.cat(column) for column in zip(*parts, strict=True))
    return nll_m, rank_m, probability_m


def _host(tensor: Tensor, dtype: Any) -> npt.NDArray[Any]:
    return tensor.cpu().numpy().astype(dtype)
