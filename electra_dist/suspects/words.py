"""The words of a text, and the tokens that each of them is made of.

Comes in: a text and where its tokens lie in it. Goes out: `TokenizedWord`s. A word is a run of
letters, digits and underscores, with a short ending after an apostrophe ("don't"), or one sign of
punctuation. Scripts that set no spaces between words give one word per character. Where one token
covers several of these, they are one word: a token is judged as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import regex

Offsets = Sequence[tuple[int, int]]

#: Scripts without spaces between words.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_UNIT = regex.compile(
    rf"{_UNSPACED}\p{{M}}*"
    rf"|(?:(?!{_UNSPACED})\w)+(?:['’]\w{{1,2}}\b(?!['’]))?"
    r"|[^\w\s]"
)


@dataclass(frozen=True)
class TokenizedWord:
    """Characters `start` to `end` of a text; `tokens` are places in its sequence of tokens."""

    start: int
    end: int
    tokens: range


def words_of(text: str, offsets: Offsets) -> list[TokenizedWord]:
    """All words of `text` that have tokens, in their order; `offsets` are those of its tokens,
    without special ones. White space is no word, nor is what the tokenizer drops.
    """
    spans = [found.span() for found in _UNIT.finditer(text)]
    words: list[TokenizedWord] = []
    unit = 0
    for token, (start, end) in enumerate(offsets):
        while unit < len(spans) and spans[unit][1] <= start:
            unit += 1
        last = unit
        while last < len(spans) and spans[last][0] < end:
            last += 1
        if last == unit:
            continue  # white space
        begins = spans[unit][0]
        ends = spans[last - 1][1]
        if words and words[-1].end > begins:
            before = words.pop()
            begins = before.start
            ends = max(ends, before.end)
            words.append(TokenizedWord(begins, ends, range(before.tokens.start, token + 1)))
        else:
            words.append(TokenizedWord(begins, ends, range(token, token + 1)))
    return words
