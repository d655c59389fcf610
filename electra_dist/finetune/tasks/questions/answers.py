"""The best answers to questions, over all spans of all windows.

Comes in: questions, their windows, the model's start and end logits. Goes out: one `Answer` per
question.

Shape letters: B windows, L tokens of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.errors import UserError
from electra_dist.finetune.tasks.questions.reading import Question
from electra_dist.finetune.tasks.questions.windows import Ints, Windows, usable

Floats = npt.NDArray[np.floating[Any]]
#: The logits of each window: an array (B, at least L),
#: padded on the right, or a sequence of B arrays.
Logits = Floats | Sequence[Floats]


@dataclass(frozen=True)
class Answer:
    """`text` is `context[start:end]`, or empty (with 0 and 0) where the answer is that there is
    none.

    `score` is the sum of the start and end logit of the best span, chosen or not; `null_score` that
    of [CLS], the lowest of the question's windows. `probability` is that of `text` among the best
    spans (softmax of their scores), and the null answer where it is allowed.
    """

    text: str
    start: int
    end: int
    score: float
    null_score: float
    probability: float


def best_answers(
    questions: Sequence[Question],
    windows: Windows,
    start_logits: Logits,
    end_logits: Logits,
    longest: int = 30,
    n_best: int = 20,
    *,
    allow_none: bool = False,
    threshold: float = 0.0,
) -> list[Answer]:
    """The best span of at most `longest` tokens for each question, over all spans of all its
    windows.

    With `allow_none` the answer is empty where `null_score - score > threshold`. Of each window the
    `n_best` best spans count; those of equal characters, from windows that overlap, count once,
    with the best of their scores; the `n_best` best of them share the probability. Raises
    `UserError` for logits that are not finite, `ValueError` for logits that do not fit the windows.
    """
    if not len(windows) == len(start_logits) == len(end_logits):
        raise ValueError(
            f"logits of {len(start_logits)} and {len(end_logits)} windows, expected {len(windows)}"
        )
    if longest < 1 or n_best < 1:
        raise ValueError(f"longest={longest}, n_best={n_best}; expected at least 1")
    edges = np.searchsorted(windows.question, np.arange(len(questions) + 1))
    answers = []
    for index, question in enumerate(questions):
        spans: dict[tuple[int, int], float] = {}
        null_score = math.inf
        for window in range(edges[index], edges[index + 1]):
            start, end = _window_logits(
                question, windows.offsets[window], start_logits[window], end_logits[window]
            )
            null_score = min(null_score, float(start[0] + end[0]))
            for span, score in _best_spans(windows.offsets[window], start, end, longest, n_best):
                spans[span] = max(score, spans.get(span, -math.inf))
        ranked = sorted(spans.items(), key=lambda item: (-item[1], item[0]))[:n_best]
        answers.append(_choose(question, ranked, null_score, threshold if allow_none else None))
    return answers


def _window_logits(
    question: Question, offsets: Ints, start: Floats, end: Floats
) -> tuple[Floats, Floats]:
    """The logits of the window's tokens in float64, without padding."""
    length = len(offsets)
    if min(len(start), len(end)) < length:
        raise ValueError(f"{len(start)} and {len(end)} logits for a window of {length} tokens")
    both = np.array([start[:length], end[:length]], dtype=np.float64)
    if not np.isfinite(both).all():
        raise UserError(
            f"question {question.id!r}: logits that are not finite; expected a model that did not"
            " diverge"
        )
    return both[0], both[1]


def _best_spans(
    offsets: Ints, start: Floats, end: Floats, longest: int, n_best: int
) -> Iterator[tuple[tuple[int, int], float]]:
    """The characters and the score of the `n_best` best spans of a window, in no order.

    Only the `n_best` starts with the best span each can have one of them: of any other, those spans
    are all better.
    """
    possible = usable(offsets)
    ends = np.append(np.where(possible, end, -np.inf), np.full(longest - 1, -np.inf))
    # (L, longest): row i, column k is the end of the span of the tokens i to i + k.
    ends_of_spans = np.lib.stride_tricks.sliding_window_view(ends, longest)
    starts = _largest(np.where(possible, start + ends_of_spans.max(axis=1), -np.inf), n_best)
    scores = (start[starts, None] + ends_of_spans[starts]).ravel()
    best = _largest(scores, n_best)
    row, more = np.divmod(best, longest)
    first = starts[row]
    last = starts[row] + more
    chars = zip(offsets[first, 0].tolist(), offsets[last, 1].tolist(), strict=True)
    yield from zip(chars, scores[best].tolist(), strict=True)


def _largest(values: Floats, count: int) -> Ints:
    """Where the `count` largest of `values` are, in no order, without those that are -inf."""
    if count < values.size:
        places = np.argpartition(values, -count)[-count:]
    else:
        places = np.arange(values.size)
    return places[values[places] > -np.inf]


def _choose(
    question: Question,
    ranked: Sequence[tuple[tuple[int, int], float]],
    null_score: float,
    threshold: float | None,
) -> Answer:
    """The best of the `ranked` spans, or none;
    `threshold` is None where there must be an answer.
    """
    (start, end), score = ranked[0]
    all_scores = [value for _, value in ranked]
    if threshold is not None:
        all_scores.append(null_score)
    scores = np.array(all_scores)
    weights = np.exp(scores - scores.max())
    probabilities = weights / weights.sum()
    if threshold is not None and null_score - score > threshold:
        return Answer("", 0, 0, score, null_score, float(probabilities[-1]))
    return Answer(
        question.context[start:end], start, end, score, null_score, float(probabilities[0])
    )
