"""Extractive question answering: questions read from files, cut into windows, and answered from a
model's logits.

1. `read_questions`: a SQuAD file (1.1 or 2.0) or JSON lines in, `Question`s out.
2. `make_windows`: questions and a fast `transformers` tokenizer in, `Windows` out: overlapping rows
   `[CLS] question [SEP] part of the context [SEP]`, with the token positions of the answer as
   labels.
3. `best_answers`: the windows and the model's start and end logits in, one `Answer` a question out.

Answers are always characters of the context, found by the tokens' offsets; tokens are never
decoded. A word-start token of SentencePiece counts the white space before the word as its own, so
offsets are freed of white space first, and a token that is nothing but white space can neither
start nor end an answer.

Shape letters: N windows, L tokens of a window, K spans.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.errors import DataError, UserError
from electra_dist.files.reading import open_regular

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
#: The logits of each window: an array (N, at least L),
#: padded on the right, or a sequence of N arrays.
Logits = Floats | Sequence[Floats]
#: Questions that are tokenized together; more only takes memory.
_BATCH = 1000


@dataclass(frozen=True)
class Question:
    """A question on a context; without answers where it cannot be answered from there, or where
    nobody has labelled it.

    `context[start : start + len(answer)] == answer` for each of `answers` and `starts`, and no
    answer is blank.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


def read_questions(path: Path, labelled: bool) -> list[Question]:
    """The questions of `path`, in order: SQuAD 1.1 or 2.0 (`.json`), or one question a line
    (`.jsonl`).

    A line is `{"question", "context"}` with, where known, "id" (otherwise the number of the line)
    and "answers", a list of `{"text", "answer_start"}` as in SQuAD; an empty one means that the
    context does not answer the question. With `labelled`, every question must say what its answers
    are. Raises `DataError` for what is not so.
    """
    entries = list(_entries(path))
    if not entries:
        raise DataError(f"{path}: no question in this file; expected at least one")
    questions: dict[str, Question] = {}
    for where, context, entry in entries:
        question = _question(where, context, entry, labelled)
        if question.id in questions:
            raise DataError(
                f"{where}: question {question.id!r} is there twice; expected an id of its own for"
                " each"
            )
        questions[question.id] = question
    if labelled and not any(
        entry.get("answers") or entry.get("is_impossible") for _, _, entry in entries
    ):
        raise DataError(
            f"{path}: no question has an answer or is marked `is_impossible`; expected labelled"
            " questions"
        )
    return list(questions.values())


def _entries(path: Path) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(where it stands, context, the object with the question) for each question of a file."""
    if path.suffix not in (".json", ".jsonl"):
        raise DataError(
            f"{path}: unknown format of questions; expected a SQuAD file (.json) or JSON lines"
            " (.jsonl)"
        )
    try:
        with open_regular(path, follow=True) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}; expected a file of UTF-8 text"
        ) from error
    if path.suffix == ".json":
        yield from _squad_entries(path, _parse(str(path), text))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            entry = _typed(where, "the line", _parse(where, line), dict)
            yield where, entry.get("context"), {"id": str(number), **entry}


def _squad_entries(path: Path, content: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    articles = _member(str(path), content, "data")
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_member(f"{path}: data[{a}]", article, "paragraphs")):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            for q, entry in enumerate(_member(where, paragraph, "qas")):
                full = f"{where}.qas[{q}]"
                yield full, paragraph.get("context"), _typed(full, "the question", entry, dict)


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); it starts with {_short(text)}") from error


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= 80:
        return text
    return f"{text[:77]}..."


def _typed(where: str, name: str, value: Any, kind: type) -> Any:
    """`value` if it is of the JSON type `kind`; a boolean is no number."""
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    expected = {
        str: "a string",
        int: "a whole number",
        list: "a list",
        dict: "an object",
        bool: "true or false",
    }[kind]
    raise DataError(f"{where}: {name} is {_short(value)}; expected {expected}")


def _member(where: str, parent: Any, key: str) -> list[Any]:
    """The list under `key`, as SQuAD nests them."""
    content = _typed(where, "the value", parent, dict)
    items: list[Any] = _typed(where, f"`{key}`", content.get(key), list)
    return items


def _question(where: str, context: Any, entry: Mapping[str, Any], labelled: bool) -> Question:
    name = _typed(where, "`id`", entry.get("id"), str)
    where = f"{where}, question {name!r}"
    question = _typed(where, "`question`", entry.get("question"), str)
    if not _typed(where, "`context`", context, str).strip():
        raise DataError(f"{where}: `context` is {_short(context)}; expected some text")
    impossible = _typed(where, "`is_impossible`", entry.get("is_impossible", False), bool)
    empty = "answers" not in entry or ("is_impossible" in entry and not entry["answers"])
    if labelled and empty and not impossible:
        raise DataError(
            f"{where}: no `answers`; expected them, or `is_impossible`, in a file of labelled"
            " questions"
        )
    found = [
        _answer(where, context, a)
        for a in _typed(where, "`answers`", entry.get("answers", []), list)
    ]
    if impossible and found:
        raise DataError(
            f"{where}: `is_impossible` with the answer {_short(found[0][0])}; expected no answers"
        )
    return Question(
        name,
        question,
        context,
        tuple(text for text, _ in found),
        tuple(start for _, start in found),
    )


def _answer(where: str, context: str, entry: Any) -> tuple[str, int]:
    answer = _typed(where, "an answer", entry, dict)
    text = _typed(where, "`text` of an answer", answer.get("text"), str)
    start = _typed(where, "`answer_start`", answer.get("answer_start"), int)
    if not text.strip():
        raise DataError(
            f"{where}: an answer is {text!r}; expected some text (no answers: an empty list)"
        )
    if start >= 0:
        there = context[start : start + len(text)]
    else:
        there = ""
    if there != text:
        raise DataError(
            f"{where}: answer {_short(text)} is not at character {start}, where {_short(there)}"
            " stands"
        )
    return text, start


@dataclass(frozen=True)
class Windows:
    """Rows of tokens for N windows, those of a question side by side and in the order of its
    context.

    `question` (N,) is the index of each window's question. `offsets` holds, per window, the
    characters (L, 2) of the context from and to which its tokens go: -1 for tokens outside the
    context, an empty range for white space alone. `start` and `end` (N,) are the positions of the
    first and the last token of the question's first answer, both 0, the position of [CLS], where
    the answer is not wholly inside the window or there is none. What there is for each token is
    kept small (int32, int8): SQuAD has some 90,000 windows.
    """

    input_ids: list[Ints]
    token_type_ids: list[Ints]
    question: Ints
    offsets: list[Ints]
    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.input_ids)


def make_windows(
    questions: Sequence[Question], tokenizer: Any, max_length: int, stride: int
) -> Windows:
    """Cut each question's context into windows of at most `max_length` tokens that overlap by
    `stride` tokens.

    Raises `DataError` where a question leaves no room for more context than the overlap, or a
    context has no tokens.
    """
    ids: list[Ints] = []
    types: list[Ints] = []
    owners: list[int] = []
    offsets: list[Ints] = []
    for first in range(0, len(questions), _BATCH):
        batch = questions[first : first + _BATCH]
        _check_room(batch, tokenizer, max_length, stride)
        encoded = tokenizer(
            [question.question for question in batch],
            [question.context for question in batch],
            truncation="only_second", max_length=max_length, stride=stride, padding=False,
            return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
        )  # fmt: skip
        ids.extend(np.array(tokens, dtype=np.int32) for tokens in encoded["input_ids"])
        types.extend(np.array(kinds, dtype=np.int8) for kinds in encoded["token_type_ids"])
        for window, owner in enumerate(encoded["overflow_to_sample_mapping"]):
            owners.append(first + owner)
            offsets.append(_context_offsets(encoded, window, batch[owner].context))
    question = np.array(owners, dtype=np.int64)
    _check_tokens(questions, question, offsets)
    start, end = _labels(questions, question, offsets)
    return Windows(ids, types, question, offsets, start, end)


def _check_room(
    questions: Sequence[Question], tokenizer: Any, max_length: int, stride: int
) -> None:
    """The tokenizers library panics where the room for the
    context is not larger than the overlap.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    encoded = tokenizer([question.question for question in questions], add_special_tokens=False)[
        "input_ids"
    ]
    for question, tokens in zip(questions, encoded, strict=True):
        room = max_length - special - len(tokens)
        if room <= stride:
            raise DataError(
                f"question {question.id!r} has {len(tokens)} tokens, which leaves {max(room, 0)} of"
                f" {max_length} for the context; expected more than the overlap of {stride}: a"
                " shorter question or a longer window"
            )


def _context_offsets(encoded: Any, window: int, context: str) -> Ints:
    """(L, 2): the characters of each token of the context, without white space around them;
    -1 for other tokens.
    """
    offsets = np.array(encoded["offset_mapping"][window], dtype=np.int64)
    inside = np.array([part == 1 for part in encoded.sequence_ids(window)])
    ink = np.flatnonzero([not character.isspace() for character in context])
    first = np.searchsorted(ink, offsets[:, 0])
    last = np.searchsorted(ink, offsets[:, 1]) - 1
    start = np.append(ink, len(context))[first]
    blank = (last < first)[:, None]
    trimmed = np.where(blank, offsets[:, 1:], np.stack([start, ink[last] + 1], axis=1))
    return np.where(inside[:, None], trimmed, -1).astype(np.int32)


def _usable(offsets: Ints) -> npt.NDArray[np.bool_]:
    """(L,): which tokens can start or end an answer:
    those of the context that are more than white space.
    """
    return offsets[:, 1] > offsets[:, 0]


def _check_tokens(questions: Sequence[Question], owners: Ints, offsets: Sequence[Ints]) -> None:
    seen = {
        int(owner) for owner, window in zip(owners, offsets, strict=True) if _usable(window).any()
    }
    for index, question in enumerate(questions):
        if index not in seen:
            raise DataError(
                f"question {question.id!r}: no tokens in its context {_short(question.context)}"
            )


def _labels(
    questions: Sequence[Question], owners: Ints, offsets: Sequence[Ints]
) -> tuple[Ints, Ints]:
    """Token positions (N,) of the first and last token of each window's answer."""
    spans = np.zeros((2, len(owners)), dtype=np.int64)
    edges = np.flatnonzero(
        np.diff(owners, prepend=-1, append=-1)
    )  # where a question's windows begin; the last: N
    first = set(edges.tolist())
    last = set((edges - 1).tolist())
    for window, owner in enumerate(owners):
        span = _answer_tokens(questions[owner], offsets[window], window in first, window in last)
        spans[:, window] = span or (0, 0)
    return spans[0], spans[1]


def _answer_tokens(
    question: Question, offsets: Ints, first: bool, last: bool
) -> tuple[int, int] | None:
    """The first and last token of the answer, if the window holds all of it.

    The `first` window of a context has all before its first token, the `last` all after its last
    one: what the tokenizer drops there (a zero-width space, say) belongs to no token.
    """
    usable = np.flatnonzero(_usable(offsets))
    if not question.answers or not usable.size:
        return None
    text = question.answers[0]
    start = question.starts[0] + len(text) - len(text.lstrip())
    end = question.starts[0] + len(text.rstrip())
    if (not first and offsets[usable[0], 0] > start) or (not last and offsets[usable[-1], 1] < end):
        return None
    tokens = usable[(offsets[usable, 1] > start) & (offsets[usable, 0] < end)]
    if tokens.size:
        return (int(tokens[0]), int(tokens[-1]))
    return None


def unreachable(questions: Sequence[Question], windows: Windows) -> list[str]:
    """Ids of the questions whose answer no window holds as a whole:
    it is longer than the overlap and lies on a cut.
    """
    reached = set(windows.question[windows.end > 0].tolist())
    return [
        question.id for i, question in enumerate(questions) if question.answers and i not in reached
    ]


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
    usable = _usable(offsets)
    ends = np.append(np.where(usable, end, -np.inf), np.full(longest - 1, -np.inf))
    # (L, longest): row i, column k is the end of the span of the tokens i to i + k.
    ends_of_spans = np.lib.stride_tricks.sliding_window_view(ends, longest)
    starts = _largest(np.where(usable, start + ends_of_spans.max(axis=1), -np.inf), n_best)
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
    allow_none = threshold is not None
    scores = np.array([value for _, value in ranked] + [null_score] * allow_none)
    weights = np.exp(scores - scores.max())
    probabilities = weights / weights.sum()
    if threshold is not None and null_score - score > threshold:
        return Answer("", 0, 0, score, null_score, float(probabilities[-1]))
    return Answer(
        question.context[start:end], start, end, score, null_score, float(probabilities[0])
    )
