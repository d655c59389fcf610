"""Drops what is too short to learn from, and what is too long to be one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from data_tools.filters.document import JUDGED_CHARACTERS, Document
from data_tools.filters.kinds import TextFilter, parameter


@dataclass(frozen=True)
class Length(TextFilter):
    """Number of words and characters, and the mean length of a word; 0 sets no limit."""

    name: ClassVar[str] = "length"
    drops: ClassVar[str] = "too short, too long, or words that are no words"
    source: ClassVar[str] = "Gopher (Rae et al. 2021, arXiv 2112.11446), A.1.1, quality filtering"

    min_words: int = parameter(50, "fewest words")
    max_words: int = parameter(100_000, "most words")
    min_characters: int = parameter(0, "fewest characters (no limit in the source)")
    max_characters: int = parameter(0, "most characters (no limit in the source)")
    min_word_length: float = parameter(3.0, "shortest mean word, in characters")
    max_word_length: float = parameter(10.0, "longest mean word, in characters")

    def check(self) -> None:
        """No lower bound is above its upper one."""
        super().check()
        for low, high in (
            ("min_words", "max_words"),
            ("min_characters", "max_characters"),
            ("min_word_length", "max_word_length"),
        ):
            least = getattr(self, low)
            if 0 < getattr(self, high) < least:
                raise self.refusal(high, f"0 for no limit, or at least {low}, which is {least}")

    def why_not(self, document: Document) -> str | None:
        """The first bound that the document is outside of."""
        characters = len(document.text)
        if characters < self.min_characters:
            return "min_characters"
        if 0 < self.max_characters < characters:
            return "max_characters"

        words = self._words(document)
        if words < self.min_words:
            return "min_words"
        if 0 < self.max_words < words:
            return "max_words"

        if document.words and not _has_one_character_words(document):
            mean = sum(map(len, document.words)) / len(document.words)
            if mean < self.min_word_length:
                return "min_word_length"
            if 0 < self.max_word_length < mean:
                return "max_word_length"
        return None

    def _words(self, document: Document) -> int:
        """All words of the document, those after the beginning that filters look at too."""
        words = len(document.words)
        for start in range(JUDGED_CHARACTERS, len(document.text), JUDGED_CHARACTERS):
            words += len(Document(document.text[start : start + JUDGED_CHARACTERS]).words)
        return words


def _has_one_character_words(document: Document) -> bool:
    """Whether most of it is in a script without white space: words have no length there."""
    return len(document.words) > 2 * len(document.judged.split())
