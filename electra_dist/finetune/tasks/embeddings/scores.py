"""How well vectors tell which texts belong together.

    spearman          of the cosine and the label, over scored pairs; pearson likewise
    auc               where the labels are 0 and 1: how often a pair of 1 is closer than one of 0
    mrr               pairs that belong together: the mean of 1 / rank of the first right text
                      among all second texts of the file
    recall_at_1, _10  how often a right text is the first, or among the first ten
    triple_accuracy   how often the right text is closer than each negative of its row

A text that is as close as the right one counts as closer, so that vectors without any meaning score
nothing. Letters: T texts, H hidden, Q queries, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.tasks.embeddings.pairs import PairSet
from electra_dist.finetune.tasks.embeddings.pooling import unit

#: Queries that are ranked together.
_PART = 256


def pair_scores(pairs: PairSet, vectors_th: NDArray[np.float32]) -> Scores:
    """Of the vectors of `pairs.texts`."""
    return _scores(pairs, unit(vectors_th))


def word_count_scores(pairs: PairSet) -> Scores:
    """Of TF-IDF vectors, whose words are counted in the file itself: what needs no model."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(dtype=np.float32, token_pattern=r"(?u)\w+")  # noqa: S106
    try:
        units_tv = vectorizer.fit_transform(pairs.texts)
    except ValueError:  # no text has a word
        return {}
    return _scores(pairs, units_tv)


def _scores(pairs: PairSet, units_th: Any) -> Scores:
    """`units_th` have length 1; an array or a sparse matrix."""
    if pairs.labels is None:
        return _ranking_scores(pairs, units_th)
    return correlations(_cosines(units_th, pairs.queries, pairs.positives), pairs.labels)


def _cosines(
    units_th: Any, one: NDArray[np.int64], other: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(P,) of each text of `one` and the text of `other` at its side."""
    if isinstance(units_th, np.ndarray):
        products = units_th[one] * units_th[other]
    else:
        products = units_th[one].multiply(units_th[other])
    cosines: NDArray[np.float32] = np.asarray(products.sum(axis=1)).reshape(-1)
    return cosines


def correlations(cosines: NDArray[np.float32], labels: NDArray[np.float64]) -> Scores:
    """Spearman's and Pearson's, 0 where one side is constant; AUC of labels 0 and 1."""
    from scipy import stats
    from sklearn.metrics import roc_auc_score

    varies = len(labels) > 1 and np.ptp(cosines) > 0 and np.ptp(labels) > 0
    scores = {"spearman": 0.0, "pearson": 0.0}
    if varies:
        scores["spearman"] = float(stats.spearmanr(cosines, labels).statistic)
        scores["pearson"] = float(stats.pearsonr(cosines, labels).statistic)
    if set(labels.tolist()) == {0.0, 1.0}:
        scores["auc"] = float(roc_auc_score(labels, cosines))
    return scores


def _ranking_scores(pairs: PairSet, units_th: Any) -> Scores:
    negatives = {number for row in pairs.negatives for number in row}
    candidates = np.array(sorted({*pairs.positives.tolist(), *negatives}))
    queries = sorted(pairs.known_positives)
    ranks: list[int] = []
    for start in range(0, len(queries), _PART):
        part = queries[start : start + _PART]
        cosines_qc = units_th[part] @ units_th[candidates].T
        if not isinstance(cosines_qc, np.ndarray):
            cosines_qc = cosines_qc.toarray()
        for query, cosines in zip(part, cosines_qc, strict=True):
            right = np.isin(candidates, list(pairs.known_positives[query]))
            others = ~right & (candidates != query)
            ranks.append(1 + int((cosines[others] >= cosines[right].max()).sum()))
    scores = rank_scores(ranks)
    if negatives:
        scores["triple_accuracy"] = _triple_accuracy(pairs, units_th)
    return scores


def rank_scores(ranks: Sequence[int]) -> Scores:
    """Of the rank of the first right text of each query, from 1."""
    found = np.array(ranks)
    return {
        "mrr": float((1 / found).mean()),
        "recall_at_1": float((found == 1).mean()),
        "recall_at_10": float((found <= 10).mean()),
    }


def _triple_accuracy(pairs: PairSet, units_th: Any) -> float:
    triples = [
        (query, positive, negative)
        for query, positive, negatives in zip(
            pairs.queries.tolist(), pairs.positives.tolist(), pairs.negatives, strict=True
        )
        for negative in negatives
    ]
    queries, positives, others = np.array(triples).T
    right = _cosines(units_th, queries, positives)
    wrong = _cosines(units_th, queries, others)
    return float((right > wrong).mean())
