"""A document as the filters see it: its text, and the words, lines and paragraphs of it, each made
once for all filters.

A *word* stands between white space. Where a script has no white space between words (Chinese,
Japanese), each character is a word. Thai, Lao, Khmer and Burmese have neither, so that their words
are phrases.
"""

from __future__ import annotations

import re
from functools import cached_property

#: A longer document is judged by its beginning: memory stays bounded, whatever comes.
JUDGED_CHARACTERS = 4_000_000

#: Kana and Han, as the inside of a character class.
_EACH_A_WORD = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
#: Marks that stand at words without being part of them.
_MARKS = (
    r"!-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u303f\uff01-\uff0f\uff1a-\uff20"
)
_HAS_EACH = re.compile(f"[{_EACH_A_WORD}]")
_WORD = re.compile(rf"[{_EACH_A_WORD}]|[^\s{_EACH_A_WORD}]+")
_BARE_WORD = re.compile(rf"[{_EACH_A_WORD}]|[^\s{_MARKS}{_EACH_A_WORD}\ud800-\udfff]+")
_BLANK_LINES = re.compile(r"\n\s*\n")


class Document:
    """One document; the properties look at its first `JUDGED_CHARACTERS` characters."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def judged(self) -> str:
        """The text that is looked at."""
        return self.text[:JUDGED_CHARACTERS]

    @cached_property
    def words(self) -> list[str]:
        """The words with the marks at them, in order."""
        if _HAS_EACH.search(self.judged):
            return _WORD.findall(self.judged)
        return self.judged.split()

    @cached_property
    def bare_words(self) -> list[str]:
        """The words in lower case and without marks: what two versions of a text share."""
        return _BARE_WORD.findall(self.judged.lower())

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank, without white space around them."""
        stripped = (line.strip() for line in self.judged.splitlines())
        return [line for line in stripped if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between blank lines."""
        stripped = (part.strip() for part in _BLANK_LINES.split(self.judged))
        return [part for part in stripped if part]
