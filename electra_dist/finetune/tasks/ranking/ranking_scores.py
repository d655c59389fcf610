"""How good an order of candidates is, by query: nDCG, MRR and AUC, as MIND's evaluation has them.

    nDCG@k   gains 2^grade - 1, discounted by log2 of the place + 1, over those of the best order
             (Burges et al., ICML 2005)
    MRR      mean of 1 / place over the relevant candidates of a query. With one of them it is the
             usual mean reciprocal rank
    AUC      fraction of the pairs of candidates of unequal grades that are in order

Among candidates with equal scores no order is right: each score is its mean over all orders of them
(McSherry and Najork, ECIR 2008), in AUC a half. So it does not depend on the order in the file.
Means are over the queries whose candidates differ in their grades.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


def ranking_scores(
    ranked: Iterable[tuple[Sequence[int], Floats]],
) -> dict[str, float]:
    """Means over queries, each with the grades and the scores (C,) of its candidates; empty where
    no query can be ordered.
    """
    rows = []
    for grades, scores in ranked:
        grade = np.asarray(grades)
        if grade.min() == grade.max():
            continue
        score = np.asarray(scores, dtype=np.float64)
        rows.append(
            (
                ndcg(grade, score, 10),
                ndcg(grade, score, 5),
                reciprocal_rank(grade, score),
                auc(grade, score),
            )
        )
    if not rows:
        return {}
    means = np.mean(rows, axis=0).tolist()
    return dict(zip(("ndcg@10", "ndcg@5", "mrr", "auc"), means, strict=True))


def ndcg(grades: Ints, scores: Floats, places: int) -> float:
    """Of the first `places`."""
    gains = np.exp2(grades.astype(np.float64)) - 1
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    discounts[places:] = 0
    best = float(np.sort(gains)[::-1] @ discounts)
    return float(gains @ _of_places(scores, discounts)) / best


def reciprocal_rank(grades: Ints, scores: Floats) -> float:
    """Mean over the candidates with a grade above 0."""
    inverse = _of_places(scores, 1 / (np.arange(len(scores)) + 1.0))
    return float(inverse[grades > 0].mean())


def auc(grades: Ints, scores: Floats) -> float:
    """Over all pairs of unequal grades."""
    ordered = 0.0
    pairs = 0
    for grade in np.unique(grades)[1:]:
        higher = scores[grades == grade]
        lower = np.sort(scores[grades < grade])
        below = np.searchsorted(lower, higher, side="left")
        not_above = np.searchsorted(lower, higher, side="right")
        ordered += float((below + not_above).sum()) / 2
        pairs += len(higher) * len(lower)
    return ordered / pairs


def _of_places(scores: Floats, values: Floats) -> Floats:
    """For each candidate the value of its place; equal scores share the mean of their places."""
    order = np.argsort(-scores, kind="stable")
    (_, starts, counts) = np.unique(-scores[order], return_index=True, return_counts=True)
    means = np.add.reduceat(values, starts) / counts
    found = np.empty(len(scores))
    found[order] = np.repeat(means, counts)
    return found
