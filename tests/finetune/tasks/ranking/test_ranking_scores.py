"""Scores of an order, against scikit-learn, MIND's formulas, and all orders of equal scores."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from electra_dist.finetune.tasks.ranking.ranking_scores import (
    auc,
    ndcg,
    ranking_scores,
    reciprocal_rank,
)


def cases(highest: int, equal: bool) -> list[tuple[Any, Any]]:
    """Grades up to `highest` and scores, some of them equal or none."""
    draw = np.random.default_rng(5)
    found: list[tuple[Any, Any]] = []
    while len(found) < 60:
        count = int(draw.integers(2, 30))
        grades = draw.integers(0, highest + 1, count)
        if equal:
            scores = draw.integers(0, 4, count).astype(np.float64)
        else:
            scores = draw.permutation(count) / 7
        if grades.max() > grades.min() == 0:
            found.append((grades, scores))
    return found


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("highest", [1, 3])
@pytest.mark.parametrize("places", [5, 10])
def test_ndcg_is_that_of_scikit_learn(places: int, highest: int, equal: bool) -> None:
    for grades, scores in cases(highest, equal):
        expected = ndcg_score([2.0**grades - 1], [scores], k=places)
        assert ndcg(grades, scores, places) == pytest.approx(expected)


@pytest.mark.parametrize("equal", [False, True])
def test_auc_is_that_of_scikit_learn(equal: bool) -> None:
    for grades, scores in cases(1, equal):
        assert auc(grades, scores) == pytest.approx(roc_auc_score(grades, scores))


def test_auc_of_grades_counts_the_pairs_in_order() -> None:
    for grades, scores in cases(3, equal=True):
        pairs = [
            (scores[a], scores[b])
            for a, b in itertools.permutations(range(len(grades)), 2)
            if grades[a] > grades[b]
        ]
        in_order = sum((high > low) + (high == low) / 2 for high, low in pairs)
        assert auc(grades, scores) == pytest.approx(in_order / len(pairs))


def test_mrr_is_the_formula_of_mind() -> None:
    for grades, scores in cases(1, equal=False):
        ordered = grades[np.argsort(scores)[::-1]]
        expected = (ordered / (np.arange(len(ordered)) + 1)).sum() / ordered.sum()
        assert reciprocal_rank(grades, scores) == pytest.approx(expected)


def test_of_equal_scores_it_is_the_mean_over_all_their_orders() -> None:
    grades = np.array([0, 1, 0, 2, 1])
    scores = np.array([1.0, 1.0, 3.0, 1.0, 0.5])
    tied = [0, 1, 3]
    found = []
    for order in itertools.permutations(tied):
        apart = scores.copy()
        for step, place in enumerate(order):
            apart[place] += 0.01 * step
        found.append((ndcg(grades, apart, 3), reciprocal_rank(grades, apart), auc(grades, apart)))
    means = np.mean(found, axis=0)
    assert ndcg(grades, scores, 3) == pytest.approx(means[0])
    assert reciprocal_rank(grades, scores) == pytest.approx(means[1])
    assert auc(grades, scores) == pytest.approx(means[2])


def test_the_order_in_the_file_changes_nothing() -> None:
    draw = random.Random(3)
    lists = [(grades.tolist(), scores) for grades, scores in cases(2, equal=True)]
    before = ranking_scores(lists)
    shuffled = []
    for grades, scores in lists:
        order = list(range(len(grades)))
        draw.shuffle(order)
        shuffled.append(([grades[place] for place in order], scores[order]))
    assert ranking_scores(shuffled) == pytest.approx(before)
    assert set(before) == {"ndcg@10", "ndcg@5", "mrr", "auc"}


def test_queries_whose_candidates_are_equally_relevant_do_not_count() -> None:
    ordered = ([0, 1], np.array([1.0, 2.0]))
    nothing = ([0, 0, 0], np.array([1.0, 2.0, 3.0]))
    everything = ([1, 1], np.array([1.0, 2.0]))
    assert ranking_scores([nothing, ordered, everything]) == dict.fromkeys(
        ("ndcg@10", "ndcg@5", "mrr", "auc"), 1.0
    )
    assert ranking_scores([nothing, everything]) == {}
