"""What the graphs of a model are compared on: token ids of real text, in batches of many shapes.

Held-out documents of the run where the export knows them, otherwise passages of the documentation
that comes with Python, which is at hand everywhere.
"""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

#: Lengths that the passages are cut to, in turn; the model's positions bound them.
_LENGTHS = (3, 9, 24, 47, 96, 200, 512)
#: Sizes of the batches, in turn; rows of a batch have different lengths.
_BATCHES = (1, 2, 5, 8)
#: Tokens compared, where there is so much text.
TOKENS = 8_000


@dataclass(frozen=True)
class Texts:
    """Documents of token ids without special tokens, and where they come from."""

    source: str
    documents: Sequence[Sequence[int]]


def passages(tokenizer: Any) -> Texts:
    """Topics of Python's documentation."""
    topics = list(pydoc_data.topics.topics.values())
    documents: list[list[int]] = []
    total = 0
    for topic in topics:
        ids = tokenizer(" ".join(topic.split()), add_special_tokens=False, verbose=False)
        documents.append(ids["input_ids"])
        total += len(ids["input_ids"])
        if total > 2 * TOKENS:
            break
    return Texts("the documentation of Python", documents)


def batches(
    texts: Texts, tokenizer: Any, positions: int, tokens: int
) -> list[list[dict[str, list[int]]]]:
    """Rows of `texts` with special tokens, of about `tokens` tokens together; the second half of
    every other row is its second segment.
    """
    rows = list(_rows(texts, tokenizer, positions, tokens))
    found: list[list[dict[str, list[int]]]] = []
    start = 0
    while start < len(rows):
        size = _BATCHES[len(found) % len(_BATCHES)]
        found.append(rows[start : start + size])
        start += size
    return found


def _rows(
    texts: Texts, tokenizer: Any, positions: int, tokens: int
) -> Iterator[dict[str, list[int]]]:
    lengths = [length for length in _LENGTHS if length < positions]
    lengths.append(positions)
    total = 0
    number = 0
    for document in texts.documents:
        start = 0
        while start < len(document) and total < tokens:
            length = lengths[number % len(lengths)]
            inside = list(document[start : start + length - 2])
            ids = [tokenizer.cls_token_id, *inside, tokenizer.sep_token_id]
            second = 0
            if number % 2:
                second = len(ids) // 2
            segments = [0] * (len(ids) - second) + [1] * second
            yield {"input_ids": ids, "token_type_ids": segments}
            start += length - 2
            total += len(ids)
            number += 1
