"""A sentence: a text, and which of its characters are words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Words of a text: letters and digits, held together by a hyphen, an apostrophe or a full stop
#: between them; any other character that is not white space is a word of its own.
_WORD = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Sentence:
    """`text[start:end]` is a word for each (start, end) of `spans`.

    `labels` has one of each word, None where nobody has labelled the sentence. `lines` are those of
    the file that the words stand in, from 1; empty where it is no file's.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    labels: tuple[str, ...] | None = None
    lines: tuple[int, ...] = field(default=(), compare=False)

    @property
    def words(self) -> list[str]:
        """Each word as it stands in the text."""
        return [self.text[start:end] for start, end in self.spans]

    def place(self, source: object, index: int) -> str:
        """Where the word `index` stands, for an error."""
        if self.lines:
            return f"{source}, line {self.lines[index]}"
        return f"{source}, word {index + 1}"


def sentence_of_words(
    words: Sequence[str], labels: Sequence[str] | None = None, lines: Sequence[int] = ()
) -> Sentence:
    """A sentence whose words are given; its text has a space between them."""
    spans = []
    start = 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    known = None if labels is None else tuple(labels)
    return Sentence(" ".join(words), tuple(spans), known, tuple(lines))


def sentence_of_text(text: str, line: int | None = None) -> Sentence:
    """A sentence whose words are found in its text; characters that nobody sees are none."""
    spans = [found.span() for found in _WORD.finditer(text) if not _unseen(found[0])]
    lines = () if line is None else (line,) * len(spans)
    return Sentence(text, tuple(spans), lines=lines)


def _unseen(word: str) -> bool:
    return all(unicodedata.category(character) in ("Cc", "Cf") for character in word)
