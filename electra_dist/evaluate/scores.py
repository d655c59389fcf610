"""What the tokens add up to: scores of both networks, by frequency band, by how convincing a
replacement is.

Comes in: `Observed`, how often each token occurs in the training split. Goes out: frozen
dataclasses of plain numbers; what is undefined (a band without replaced tokens has no AUC) is None.
Ranking metrics are scikit-learn's, exact.

Letters: M masked positions, T real tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.batch import SpecialTokens
from electra_dist.evaluate.heldout import Observed
from electra_dist.evaluate.vocabulary import ClassScores, Confusion

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

#: Equal bins of the probability over [0, 1], for calibration.
CALIBRATION_BINS = 20
#: Lower ends of the bins of the generator's probability of the token that it put in.
CONVINCING = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
#: Points of the ROC curve that are kept, at even distances of the false-positive rate.
ROC_POINTS = 201
#: Band of the tokens that the training split does not have, and of the special ones.
UNSEEN = -1
SPECIAL = -2


@dataclass(frozen=True)
class GeneratorScores(ClassScores):
    """The generator at the masked positions; losses in nats."""

    masked_tokens: int
    loss: float
    perplexity: float
    accuracy: float
    top5_accuracy: float
    unigram_entropy: float


@dataclass(frozen=True)
class DiscriminatorScores:
    """The discriminator at all real tokens, `replaced` being the positive class, threshold 0.5."""

    tokens: int
    replaced_fraction: float
    loss: float
    accuracy: float
    always_original_accuracy: float
    auc: float | None
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    brier: float
    brier_of_replaced_fraction: float
    expected_calibration_error: float


@dataclass(frozen=True)
class Band:
    """Tokens whose frequency rank lies in [first, last]; None, None: tokens that the training split
    does not have.

    The generator's numbers are over masked positions by their original token, the discriminator's
    over real tokens by the token that is shown. `unigram_loss` is what a generator that knows only
    the frequencies would have.
    """

    name: str
    first: int | None
    last: int | None
    masked_tokens: int
    loss: float | None
    unigram_loss: float | None
    accuracy: float | None
    top5_accuracy: float | None
    shown_tokens: int
    replaced: int
    auc: float | None
    recall: float | None


@dataclass(frozen=True)
class Convincing:
    """Replaced tokens to which the generator gave a probability in [low, high)."""

    low: float
    high: float
    replaced: int
    recall: float | None
    mean_probability: float | None


@dataclass(frozen=True)
class CalibrationBin:
    """Tokens that the discriminator calls replaced with a probability in [low, high)."""

    low: float
    high: float
    tokens: int
    replaced: int
    mean_probability: float | None
    replaced_fraction: float | None


def generator_scores(
    seen: Observed, confusion: Confusion, unigram_entropy: float
) -> GeneratorScores:
    """Means over the masked positions; `confusion` counts the same ones."""
    loss = float(seen.nll.mean(dtype=np.float64))
    return GeneratorScores(
        **vars(confusion.scores()),
        masked_tokens=len(seen.nll),
        loss=loss,
        perplexity=math.exp(loss),
        accuracy=float((seen.rank == 0).mean()),
        top5_accuracy=float((seen.rank < 5).mean()),
        unigram_entropy=unigram_entropy,
    )


def discriminator_scores(seen: Observed) -> DiscriminatorScores:
    """Scores over all real tokens."""
    from sklearn import metrics  # type: ignore[import-untyped,unused-ignore]

    logits = seen.logits.astype(np.float64)
    replaced = seen.replaced
    called = logits >= 0
    fraction = float(replaced.mean())
    probability = sigmoid(logits)
    hits = int((called & replaced).sum())
    precision = ratio(hits, int(called.sum()))
    recall = ratio(hits, int(replaced.sum()))
    bins = calibration(seen)
    return DiscriminatorScores(
        tokens=len(logits),
        replaced_fraction=fraction,
        loss=float(detection_losses(seen).mean()),
        accuracy=float((called == replaced).mean()),
        always_original_accuracy=1 - fraction,
        auc=auc(seen.logits, replaced),
        average_precision=float(metrics.average_precision_score(replaced, logits))
        if replaced.any()
        else None,
        precision=precision,
        recall=recall,
        f1=ratio(2 * hits, int(called.sum()) + int(replaced.sum())),
        brier=float(((probability - replaced) ** 2).mean()),
        brier_of_replaced_fraction=fraction * (1 - fraction),
        expected_calibration_error=calibration_error(bins),
    )


def detection_losses(seen: Observed) -> npt.NDArray[np.float64]:
    """(T,) binary cross-entropy of each token (nats)."""
    logits = seen.logits.astype(np.float64)
    out: npt.NDArray[np.float64] = np.logaddexp(0, logits) - logits * seen.replaced
    return out


def auc(logits: npt.NDArray[np.float32], replaced: Bool) -> float | None:
    """Probability that a replaced token has the larger logit;
    None unless there are tokens of both kinds.
    """
    if replaced.all() or not replaced.any():
        return None
    from sklearn import metrics

    return float(metrics.roc_auc_score(replaced, logits))


def roc(seen: Observed) -> tuple[tuple[float, float], ...]:
    """(false-positive rate, true-positive rate) at `ROC_POINTS` even rates;
    empty where it is undefined.
    """
    if seen.replaced.all() or not seen.replaced.any():
        return ()
    from sklearn import metrics

    false, true, _ = metrics.roc_curve(seen.replaced, seen.logits)
    at = np.linspace(0, 1, ROC_POINTS)
    return tuple(zip(at.tolist(), np.interp(at, false, true).tolist(), strict=True))


def calibration(seen: Observed) -> tuple[CalibrationBin, ...]:
    """How often tokens are replaced, by the probability that the discriminator gives to it."""
    probability = sigmoid(seen.logits.astype(np.float64))
    number = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    tokens, replaced, sums = (
        np.bincount(number, weights, CALIBRATION_BINS)
        for weights in (None, seen.replaced, probability)
    )
    return tuple(
        CalibrationBin(
            low=b / CALIBRATION_BINS,
            high=(b + 1) / CALIBRATION_BINS,
            tokens=int(tokens[b]),
            replaced=int(replaced[b]),
            mean_probability=ratio(sums[b], tokens[b]),
            replaced_fraction=ratio(replaced[b], tokens[b]),
        )
        for b in range(CALIBRATION_BINS)
    )


def calibration_error(bins: tuple[CalibrationBin, ...]) -> float:
    """Mean distance of probability and frequency over the tokens,
    bin by bin (Guo et al. 2017, arXiv 1706.04599).
    """
    total = sum(b.tokens for b in bins)
    return sum(
        b.tokens / total * abs(b.mean_probability - b.replaced_fraction)
        for b in bins
        if b.mean_probability is not None and b.replaced_fraction is not None
    )


def frequency_bands(
    token_counts: Int64, specials: SpecialTokens
) -> tuple[Int64, list[tuple[int, int]]]:
    """(V,) band of each token, and the first and last rank of each band: 1 to 10, 11 to 100, ...

    Rank 1 is the most frequent token of the training split (ties: the lower id). Special tokens are
    in band `SPECIAL`, those with count 0 in `UNSEEN`.
    """
    special = np.array(specials.never_masked)
    counts = token_counts.copy()
    counts[special] = 0
    order = np.argsort(-counts, kind="stable")
    seen = int((counts > 0).sum())
    rank = np.empty(len(counts), np.int64)
    rank[order] = np.arange(1, len(counts) + 1)
    edges = [
        (10**n + 1 if n else 1, min(10 ** (n + 1), seen))
        for n in range(len(str(seen)))
        if 10**n < seen or not n
    ]
    last = np.array([stop for _, stop in edges])
    band = np.searchsorted(last, rank)
    band[rank > seen] = UNSEEN
    band[special] = SPECIAL
    return band, edges


def bands(seen: Observed, token_counts: Int64, specials: SpecialTokens) -> tuple[Band, ...]:
    """Both networks by the frequency of the token, the frequent ones first;
    `unseen` only where there are such.
    """
    band_of, edges = frequency_bands(token_counts, specials)
    target_band = band_of[seen.targets]
    shown_band = band_of[seen.shown]
    unigram_nll = _unigram_nll(seen.targets, token_counts)

    def band(name: str, ranks: tuple[int | None, int | None], number: int) -> Band:
        return _band(seen, unigram_nll, name, ranks, target_band == number, shown_band == number)

    found = [
        band(f"{first:,}-{last:,}", (first, last), number)
        for number, (first, last) in enumerate(edges)
    ]
    unseen = band("unseen", (None, None), UNSEEN)
    return tuple(found + [unseen] * (unseen.masked_tokens + unseen.shown_tokens > 0))


def _unigram_nll(targets: npt.NDArray[np.int32], token_counts: Int64) -> npt.NDArray[np.float64]:
    """(M,) negative log frequency of each target in the training split;
    infinite where it is not there.
    """
    with np.errstate(divide="ignore"):
        out: npt.NDArray[np.float64] = np.log(token_counts.sum()) - np.log(token_counts[targets])
    return out


def _band(
    seen: Observed,
    unigram_nll: npt.NDArray[np.float64],
    name: str,
    ranks: tuple[int | None, int | None],
    masked: Bool,
    shown: Bool,
) -> Band:
    rank = seen.rank[masked]
    replaced = seen.replaced[shown]
    logits = seen.logits[shown]
    return Band(
        name=name,
        first=ranks[0],
        last=ranks[1],
        masked_tokens=len(rank),
        loss=mean(seen.nll[masked]),
        unigram_loss=mean(unigram_nll[masked]) if ranks[0] else None,
        accuracy=mean(rank == 0),
        top5_accuracy=mean(rank < 5),
        shown_tokens=len(replaced),
        replaced=int(replaced.sum()),
        auc=auc(logits, replaced),
        recall=mean(logits[replaced] >= 0),
    )


def convincing(seen: Observed) -> tuple[Convincing, ...]:
    """How many replaced tokens are found, by the probability that the generator gave to them."""
    replaced = seen.samples != seen.targets
    probability = seen.sample_probability[replaced]
    logits = seen.masked_logits[replaced].astype(np.float64)
    found = []
    for low, high in zip(CONVINCING, (*CONVINCING[1:], 1.0), strict=True):
        inside = (probability >= low) & ((probability < high) | (high == 1.0))
        chosen = logits[inside]
        found.append(Convincing(low, high, len(chosen), mean(chosen >= 0), mean(sigmoid(chosen))))
    return tuple(found)


def sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probability of `replaced`."""
    out: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits))
    return out


def mean(values: npt.NDArray[Any]) -> float | None:
    """The mean, or None of nothing."""
    if len(values):
        return float(values.mean(dtype=np.float64))
    return None


def ratio(part: float, whole: float) -> float | None:
    """`part / whole`, or None of nothing."""
    if whole:
        return float(part / whole)
    return None
