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

from electra_dist.batch import PADDING_DOCUMENT
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.inputs import ModelBatch
from electra_dist.train.heldout.passages import Answers, answers_of
from electra_dist.train.step import Forwarded, StepTotals, micro_batch_totals


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
    def empty(cls) -> Observed:
        """Of no token."""
        return cls(**{name: np.zeros(0, dtype) for name, dtype in _TYPES.items()})

    @classmethod
    def joined(cls, parts: list[Observed]) -> Observed:
        """All parts, one after the other."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )

    def by_row(self) -> Observed:
        """The same in the order of the rows."""
        by_mask = np.argsort(self.masked_rows, kind="stable")
        by_token = np.argsort(self.token_rows, kind="stable")
        ordered = {}
        for field in fields(self):
            order = by_mask
            if field.name in _OF_TOKENS:
                order = by_token
            ordered[field.name] = getattr(self, field.name)[order]
        return Observed(**ordered)

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


_TYPES: dict[str, Any] = {
    "masked_rows": np.int32,
    "targets": np.int32,
    "nll": np.float32,
    "rank": np.int32,
    "samples": np.int32,
    "sample_probability": np.float32,
    "masked_logits": np.float32,
    "token_rows": np.int32,
    "shown": np.int32,
    "logits": np.float32,
    "replaced": np.bool_,
}
#: Fields of `Observed` that are of real tokens; the others are of masked positions.
_OF_TOKENS = ("token_rows", "shown", "logits", "replaced")


class Judged(NamedTuple):
    """One micro-batch: its sums, its tokens, the generator's most likely token at each masked
    position, (M,), and for passages to read the corrupted rows and logits, (B, L), and the
    generator's probabilities, (B, P).
    """

    totals: StepTotals
    observed: Observed
    likeliest: npt.NDArray[np.int32]
    corrupted: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]

    @property
    def answers(self) -> Answers:
        """For passages."""
        return Answers(self.corrupted, self.logits, self.probabilities)


@torch.no_grad()
def judge(networks: Networks, batch: ModelBatch, first_row: int = 0) -> Judged:
    """Run both networks over one micro-batch, whose rows are numbered from `first_row` on."""
    generated = networks.generator(batch, looks=True)
    output = networks.discriminator(
        generated.shared, batch, generated.corrupted, generated.replaced
    )
    forwarded = Forwarded(batch, generated, output)
    rows_b = first_row + np.arange(len(batch.documents), dtype=np.int64)
    answers = answers_of(forwarded)
    return Judged(
        micro_batch_totals(batch, generated, output),
        observe(forwarded, rows_b),
        likeliest_of(forwarded),
        *answers,
    )


@torch.no_grad()
def observe(forwarded: Forwarded, rows_b: npt.NDArray[np.int64]) -> Observed:
    """What the networks said of a micro-batch, whose rows have the numbers `rows_b` (B,)."""
    batch, generated, judged = forwarded
    assert generated.look is not None, "the generator was not asked to look"
    used_m = batch.masked_weights.flatten() > 0
    samples_bp = generated.corrupted.gather(1, batch.masked_positions)
    masked_logits_bp = judged.logits.gather(1, batch.masked_positions)
    real_bl = batch.documents != PADDING_DOCUMENT
    numbers_b = torch.as_tensor(rows_b, device=real_bl.device)[:, None]
    look = generated.look
    return Observed(
        masked_rows=_host(numbers_b.expand_as(samples_bp).flatten()[used_m], np.int32),
        targets=_host(batch.masked_targets.flatten()[used_m], np.int32),
        nll=_host(look.nll_m[used_m], np.float32),
        rank=_host(look.rank_m[used_m], np.int32),
        samples=_host(samples_bp.flatten()[used_m], np.int32),
        sample_probability=_host(look.probability_m[used_m], np.float32),
        masked_logits=_host(masked_logits_bp.flatten()[used_m], np.float32),
        token_rows=_host(numbers_b.expand_as(real_bl)[real_bl], np.int32),
        shown=_host(generated.corrupted[real_bl], np.int32),
        logits=_host(judged.logits[real_bl], np.float32),
        replaced=_host(generated.replaced[real_bl] > 0, np.bool_),
    )


@torch.no_grad()
def likeliest_of(forwarded: Forwarded) -> npt.NDArray[np.int32]:
    """(M,) the generator's most likely token at each masked position, in the order of `observe`."""
    look = forwarded.generated.look
    assert look is not None, "the generator was not asked to look"
    used_m = forwarded.batch.masked_weights.flatten() > 0
    likeliest_m: npt.NDArray[np.int32] = _host(look.likeliest_m[used_m], np.int32)
    return likeliest_m


def _host(tensor: Tensor, dtype: Any) -> npt.NDArray[Any]:
    return tensor.cpu().numpy().astype(dtype)
