"""Windows of tokens over the contexts of questions, with the positions of the answers as labels.

Comes in: questions and a fast `transformers` tokenizer. Goes out: `Windows`.

Shape letters: B windows, L tokens of a window.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.console import warn
from electra_dist.errors import DataError
from electra_dist.finetune.tasks.questions.reading import Question, short

Ints = npt.NDArray[np.integer[Any]]
#: Questions that are tokenized together; more only takes memory.
_BATCH = 1000


@dataclass(frozen=True)
class Windows:
    """Rows of tokens for B windows, those of a question side by side and in the order of its
    context.

    `question` (B,) is the index of each window's question. `offsets` holds, per window, the
    characters (L, 2) of the context from and to which its tokens go: -1 for tokens outside the
    context, an empty range for white space alone. `start` and `end` (B,) are the positions of the
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

    A question that leaves no room for more context than the overlap is cut, with a warning, so that
    twice the overlap is left. Raises `DataError` where `stride` leaves no room for a question at
    all, or a context has no tokens.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    longest = room - max(2 * stride, 1)
    if longest < 1:
        raise DataError(
            f"`stride` {stride}: twice the overlap leaves no room for a question in windows of"
            f" {max_length} tokens; take a smaller one, or a larger `max_length`"
        )
    cut: list[str] = []
    ids: list[Ints] = []
    types: list[Ints] = []
    owners: list[int] = []
    offsets: list[Ints] = []
    for first in range(0, len(questions), _BATCH):
        batch = questions[first : first + _BATCH]
        asked = _fitting(batch, tokenizer, longest, room - stride, cut)
        encoded = tokenizer(
            asked,
            [question.context for question in batch],
            truncation="only_second", max_length=max_length, stride=stride, padding=False,
            return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
        )  # fmt: skip
        ids.extend(np.array(tokens, dtype=np.int32) for tokens in encoded["input_ids"])
        types.extend(np.array(kinds, dtype=np.int8) for kinds in encoded["token_type_ids"])
        for window, owner in enumerate(encoded["overflow_to_sample_mapping"]):
            owners.append(first + owner)
            offsets.append(_context_offsets(encoded, window, batch[owner].context))
    if cut:
        warn(
            f"{len(cut):,} of {len(questions):,} questions are longer than {longest} tokens; the"
            f" rest of them is not seen ({', '.join(cut[:3])}{', ...' if len(cut) > 3 else ''})"
        )
    question = np.array(owners, dtype=np.int64)
    _check_tokens(questions, question, offsets)
    start, end = _labels(questions, question, offsets)
    return Windows(ids, types, question, offsets, start, end)


def _fitting(
    questions: Sequence[Question], tokenizer: Any, longest: int, limit: int, cut: list[str]
) -> list[str]:
    """The texts of the questions; those of `limit` tokens or more are cut to `longest`, and their
    ids added to `cut`. (The tokenizers library panics where the room for the context is not larger
    than the overlap.)
    """
    texts = [question.question for question in questions]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    for index, offsets in enumerate(encoded["offset_mapping"]):
        if len(offsets) >= limit:
            texts[index] = texts[index][: offsets[longest - 1][1]]
            cut.append(questions[index].id)
    return texts


def _context_offsets(encoded: Any, window: int, context: str) -> Ints:
    """(L, 2): the characters of each token of the context, without what is invisible around them
    (white space, zero-width characters); -1 for other tokens.
    """
    offsets = np.array(encoded["offset_mapping"][window], dtype=np.int64)
    inside = np.array([part == 1 for part in encoded.sequence_ids(window)])
    ink = np.flatnonzero([not is_invisible(character) for character in context])
    first = np.searchsorted(ink, offsets[:, 0])
    last = np.searchsorted(ink, offsets[:, 1]) - 1
    ink = np.append(ink, len(context))  # a context may be white space alone
    start = ink[first]
    blank = (last < first)[:, None]
    trimmed = np.where(blank, offsets[:, 1:], np.stack([start, ink[last] + 1], axis=1))
    return np.where(inside[:, None], trimmed, -1).astype(np.int32)


def is_invisible(character: str) -> bool:
    """Whether nothing of it is seen: white space, or a format character (zero-width space, byte
    order mark, soft hyphen).
    """
    return character.isspace() or unicodedata.category(character) == "Cf"


def usable(offsets: Ints) -> npt.NDArray[np.bool_]:
    """(L,): which tokens can start or end an answer:
    those of the context that are more than white space.
    """
    return offsets[:, 1] > offsets[:, 0]


def _check_tokens(questions: Sequence[Question], owners: Ints, offsets: Sequence[Ints]) -> None:
    seen = {
        int(owner) for owner, window in zip(owners, offsets, strict=True) if usable(window).any()
    }
    for index, question in enumerate(questions):
        if index not in seen:
            raise DataError(
                f"question {question.id!r}: no tokens in its context {short(question.context)}"
            )


def _labels(
    questions: Sequence[Question], owners: Ints, offsets: Sequence[Ints]
) -> tuple[Ints, Ints]:
    """Token positions (B,) of the first and last token of each window's answer."""
    spans = np.zeros((2, len(owners)), dtype=np.int64)
    # where a question's windows begin; the last: B
    edges = np.flatnonzero(np.diff(owners, prepend=-1, append=-1))
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
    possible = np.flatnonzero(usable(offsets))
    if not question.answers or not possible.size:
        return None
    seen = [at for at, one in enumerate(question.answers[0]) if not is_invisible(one)]
    if not seen:
        return None
    start = question.starts[0] + seen[0]
    end = question.starts[0] + seen[-1] + 1
    if (not first and offsets[possible[0], 0] > start) or (
        not last and offsets[possible[-1], 1] < end
    ):
        return None
    tokens = possible[(offsets[possible, 1] > start) & (offsets[possible, 0] < end)]
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
