"""Orders of candidates that need no model: the most clicked first, or the most words of the query.

Comes in: the queries trained on and the held-out ones. Goes out: the held-out scores of the better
of the two, so that a model is compared with what is hard to beat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.tasks.candidates.overlap import word_overlap
from electra_dist.finetune.tasks.ranking.queries import Query
from electra_dist.finetune.tasks.ranking.ranking_scores import Floats, ranking_scores


def without_model(
    training: Iterable[Query], held_out: Iterable[Query], main_score: str
) -> tuple[str, Scores]:
    """What the better baseline orders by, in words, and its scores; those are empty where no
    held-out query can be ordered.
    """
    # A hash in place of the text: a few bytes for each text that was ever relevant.
    clicks = Counter(hash(text) for query in training for text in _relevant(query))

    def popularity(query: Query) -> Floats:
        return np.array([clicks[hash(text)] for text in query.candidates], dtype=np.float64)

    def words(query: Query) -> Floats:
        return word_overlap(query.text, query.candidates)

    baselines: dict[str, Callable[[Query], Floats]] = {
        "how often each was relevant in training": popularity,
        "how many words of the query each has": words,
    }
    scores = {
        name: ranking_scores(
            (query.grades, order_by(query)) for query in held_out if query.grades is not None
        )
        for name, order_by in baselines.items()
    }
    best = max(scores, key=lambda name: scores[name].get(main_score, 0.0))
    return best, scores[best]


def _relevant(query: Query) -> Iterator[str]:
    for text, grade in zip(query.candidates, query.grades or (), strict=True):
        if grade > 0:
            yield text
