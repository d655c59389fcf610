"""Orders of candidates that need no model: the most clicked first, or the most words of the query.

Comes in: the queries trained on and the held-out ones. Goes out: the held-out scores of the better
of the two, so that a model is compared with what is hard to beat.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.tasks.ranking.queries import Query
from electra_dist.finetune.tasks.ranking.ranking_scores import Floats, ranking_scores

_WORD = re.compile(r"\w+")


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

    baselines: dict[str, Callable[[Query], Floats]] = {
        "how often each was relevant in training": popularity,
        "how many words of the query each has": word_overlap,
    }
    scores = {
        name: ranking_scores(
            (query.grades, order_by(query)) for query in held_out if query.grades is not None
        )
        for name, order_by in baselines.items()
    }
    best = max(scores, key=lambda name: scores[name].get(main_score, 0.0))
    return best, scores[best]


def word_overlap(query: Query) -> Floats:
    """For each candidate, how many of the different words of the query it has."""
    wanted = _words(query.text)
    shared = [len(wanted & _words(text)) for text in query.candidates]
    return np.array(shared, dtype=np.float64)


def _relevant(query: Query) -> Iterator[str]:
    for text, grade in zip(query.candidates, query.grades or (), strict=True):
        if grade > 0:
            yield text


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
