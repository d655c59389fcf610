"""Texts as a network takes them: tokens with their places, and windows over long texts.

Comes in: a tokenizer and a text of any length. Goes out: inputs of at most so many positions as the
network has. Neighbouring windows share a quarter of their tokens, and each token is judged in the
one that shows more of the text around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Of a window, what the next one repeats.
_SHARED = 0.25
#: [CLS] and [SEP].
FRAME = 2


@dataclass(frozen=True)
class Tokens:
    """A text without special tokens: ids, and the characters from and to which each one stands."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `end`, of which those from `first` to `last` are judged here."""

    start: int
    end: int
    first: int
    last: int


def tokens_of(tokenizer: Any, text: str) -> Tokens:
    """The whole text, however long; "[MASK]" in it is text like any other."""
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,  # it warns of long texts, which go into windows
    )
    offsets = tuple((start, end) for start, end in encoded["offset_mapping"])
    return Tokens(tuple(encoded["input_ids"]), offsets)


def framed(tokenizer: Any, ids: Sequence[int]) -> dict[str, list[int]]:
    """The inputs of a network: `ids` between [CLS] and [SEP]."""
    whole = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    return {"input_ids": whole, "attention_mask": [1] * len(whole)}


def windows_over(count: int, positions: int) -> list[Window]:
    """Windows over `count` tokens for a network of so many `positions`; they judge each token
    once.
    """
    size = positions - FRAME
    step = size - int(size * _SHARED)
    starts = [0]
    while starts[-1] + size < count:
        starts.append(min(starts[-1] + step, count - size))
    windows = []
    first = 0
    for number, start in enumerate(starts):
        end = min(start + size, count)
        last = end
        if number + 1 < len(starts):
            last = (starts[number + 1] + end) // 2  # the middle of what the two share
        windows.append(Window(start, end, first, last))
        first = last
    return windows
