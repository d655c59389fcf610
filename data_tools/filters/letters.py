"""Drops what is mostly numbers, tables, symbols or list marks instead of sentences."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data_tools.filters.document import Document
from data_tools.filters.kinds import TextFilter, parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_LETTER = re.compile(r"[^\W\d_]")
_OTHER = 0
_LETTERS = 1
_SPACE = 2


@dataclass(frozen=True)
class Letters(TextFilter):
    """Share of letters among the characters, of words with a letter, and of two symbols."""

    name: ClassVar[str] = "letters"
    drops: ClassVar[str] = "numbers, tables and symbols in place of sentences"
    source: ClassVar[str] = (
        "Gopher (Rae et al. 2021, arXiv 2112.11446), A.1.1, quality filtering; min_letters:"
        " ROOTS (Laurençon et al. 2022, arXiv 2303.03915), at most 0.4 special characters"
    )

    min_letters: float = parameter(
        0.6, "smallest share of letters among the characters that are no white space"
    )
    min_words_with_letters: float = parameter(0.8, "smallest share of words that have a letter")
    max_symbols: float = parameter(0.1, "most `#`, or most ellipses, per word")

    def check(self) -> None:
        super().check()
        self.check_shares("min_letters", "min_words_with_letters")

    def why_not(self, document: Document) -> str | None:
        """The first share that the document misses: letters, then words, then symbols."""
        if letter_share(document.judged) < self.min_letters:
            return "min_letters"

        words = document.words
        with_letters = sum(1 for word in words if word.isalpha() or _LETTER.search(word))
        if with_letters < self.min_words_with_letters * len(words):
            return "min_words_with_letters"

        text = document.judged
        ellipses = text.count("...") + text.count("…")
        if max(text.count("#"), ellipses) > self.max_symbols * len(words):
            return "max_symbols"
        return None


def letter_share(text: str) -> float:
    """Letters and the marks on them, among the characters of `text` that are no white space;
    0 where there are none.
    """
    import numpy as np

    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    counts = np.bincount(_classes()[points], minlength=3)
    characters = int(counts[_OTHER] + counts[_LETTERS])
    if not characters:
        return 0.0
    return int(counts[_LETTERS]) / characters


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """The class of every code point: letter (Unicode categories L and M), white space, other."""
    import numpy as np

    classes = np.full(sys.maxunicode + 1, _OTHER, dtype=np.uint8)
    for point in range(len(classes)):
        character = chr(point)
        if unicodedata.category(character)[0] in "LM":
            classes[point] = _LETTERS
        elif character.isspace():
            classes[point] = _SPACE
    return classes
