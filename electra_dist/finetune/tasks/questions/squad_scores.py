"""The scores of SQuAD: predicted answers and questions with their gold answers in, exact match and
F1 out (0 to 1).

As defined for SQuAD 1.1 (arXiv 1606.05250, section 6.1): case, punctuation and the articles a, an,
the are ignored; exact match is equality, F1 the overlap of the two bags of words; each question
counts with the gold answer that scores best, and the score is the mean over questions. For SQuAD
2.0 (arXiv 1806.03822) a question without gold answers scores 1 for the empty prediction and 0 for
every other.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from electra_dist.errors import DataError
from electra_dist.finetune.tasks.questions.answers import Answer
from electra_dist.finetune.tasks.questions.reading import Question

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    """The words that count; punctuation is taken out, not made a space ("U.S." is "us")."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1 if `prediction` equals one of `golds` after normalisation, otherwise 0;
    no golds: the answer is none.
    """
    return float(any(_words(prediction) == _words(gold) for gold in golds or ("",)))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Harmonic mean of the precision and recall of words, for the best of `golds`;
    no golds: the answer is none.
    """
    return max(_f1(_words(prediction), _words(gold)) for gold in golds or ("",))


def _f1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    if not prediction or not gold:
        return float(prediction == gold)
    common = (Counter(prediction) & Counter(gold)).total()
    # 2pr / (p + r) with p = common / |prediction|, r = common / |gold|
    return 2 * common / (len(prediction) + len(gold))


def squad_scores(answers: Mapping[str, str], questions: Sequence[Question]) -> dict[str, float]:
    """`exact_match` and `f1` of the predicted `answers` by question id, as fractions.

    Where some questions cannot be answered, also `no_answer_accuracy` of those and
    `has_answer_exact_match` and `has_answer_f1` of the others. Raises `DataError` when there is no
    question, or a question without a prediction.
    """
    if not questions:
        raise DataError("no question to score; expected at least one")
    for question in questions:
        if question.id not in answers:
            raise DataError(
                f"question {question.id!r}: no prediction for it; expected one, empty for no answer"
            )
    scores = _means("", answers, questions)
    without = [question for question in questions if not question.answers]
    if without:
        having = [question for question in questions if question.answers]
        if having:
            scores |= _means("has_answer_", answers, having)
        else:
            scores |= {}
        scores["no_answer_accuracy"] = _mean(
            exact_match(answers[question.id], ()) for question in without
        )
    return scores


def _means(
    prefix: str, answers: Mapping[str, str], questions: Sequence[Question]
) -> dict[str, float]:
    return {
        f"{prefix}{name}": _mean(
            score(answers[question.id], question.answers) for question in questions
        )
        for name, score in (("exact_match", exact_match), ("f1", f1))
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def best_threshold(questions: Sequence[Question], answers: Sequence[Answer]) -> float:
    """The `threshold` of `best_answers` with the best F1 on labelled `questions`, as SQuAD 2.0's
    evaluation chooses it.

    `answers` are those of `best_answers` without `allow_none`. Of thresholds that are as good the
    lowest is taken, which answers the fewest questions. Raises `ValueError` when the two do not
    fit, or an answer is empty.
    """
    if (
        not questions
        or len(questions) != len(answers)
        or not all(answer.text for answer in answers)
    ):
        raise ValueError(
            "expected labelled questions, and for each an answer that was found without"
            " `allow_none`"
        )
    margins = np.array([answer.null_score - answer.score for answer in answers])
    # what it adds to the sum of F1 to give the span instead of nothing
    gains = np.array(
        [f1(a.text, q.answers) - f1("", q.answers) for q, a in zip(questions, answers, strict=True)]
    )
    values, group = np.unique(margins, return_inverse=True)
    # nothing answered; up to each value
    totals = np.append(0.0, np.cumsum(np.bincount(group, weights=gains)))
    best = int(np.flatnonzero(totals >= totals.max() - 1e-9)[0])
    if best:
        return float(values[best - 1])
    return math.nextafter(float(values[0]), -math.inf)
