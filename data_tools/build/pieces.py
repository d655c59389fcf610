"""Documents of any size as a stream of pieces: normalised, cut for the tokenizer.

A long document is never in memory as a whole. What comes out does not depend on where the reader
cut it: `TextStream` gives the text that `normalise` would give for all of it, `NormalStream` its
normal form, and `Chunks` cuts the text at places of its own.

A chunk ends before a single space between two words, where there is one. A tokenizer that splits at
spaces gives the same ids for the chunks as for the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_tools.clean import normal_form, normalise

#: Characters of a chunk that the tokenizer gets at most.
CHUNK_CHARACTERS = 2**16
#: A character that no normalisation changes or joins with its neighbours.
_FENCE = "0"
_SPACE_BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
_WHITE_SPACE = re.compile(r"\s")


class TextStream:
    """Prepares a document for the tokenizer, piece by piece: the results together are `normalise`
    of all of it. `characters` counts them without the white space at both ends.
    """

    def __init__(self) -> None:
        self.characters = 0
        self._spaces = 0
        self._return = ""

    def add(self, text: str) -> str:
        """The next piece; a carriage return at its end comes with the piece after."""
        text = self._return + text
        self._return = ""
        if text.endswith("\r"):
            self._return = "\r"
            text = text[:-1]
        return self._counted(normalise(text))

    def rest(self) -> str:
        """What is left at the end of the document."""
        return self._counted(normalise(self._return))

    def _counted(self, text: str) -> str:
        inner = text
        if not self.characters:
            inner = text.lstrip()
        body = inner.rstrip()
        if body:
            self.characters += self._spaces + len(body)
            self._spaces = len(inner) - len(body)
        elif self.characters:
            self._spaces += len(inner)
        return text


class NormalStream:
    """The normal form of a document piece by piece: the results together are what `digest` sees."""

    def __init__(self) -> None:
        self._started = False
        self._spaces = ""

    def add(self, text: str) -> str:
        """The next piece; white space at its end comes with the piece after."""
        fenced = normal_form(_FENCE + text + _FENCE)
        inner = self._spaces + fenced[len(_FENCE) : -len(_FENCE)]
        if not self._started:
            inner = inner.lstrip()
        body = inner.rstrip()
        self._spaces = inner[len(body) :]
        self._started = self._started or bool(body)
        return body


class Chunks:
    """Cuts the text of a document for the tokenizer."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, text: str) -> Iterator[str]:
        """The chunks that are complete with `text`."""
        self._text += text
        start = 0
        while len(self._text) - start > CHUNK_CHARACTERS:
            end = self._end(start)
            yield self._text[start:end]
            start = end
        self._text = self._text[start:]

    def rest(self) -> str:
        """What is left at the end of the document."""
        return self._text

    def _end(self, start: int) -> int:
        limit = start + CHUNK_CHARACTERS
        for pattern in (_SPACE_BETWEEN_WORDS, _WHITE_SPACE):
            end = _last_match(pattern, self._text, start, limit)
            if end < limit:
                return end
        return limit


def _last_match(pattern: re.Pattern[str], text: str, start: int, limit: int) -> int:
    """Where the last match in the second half of [start, limit) starts; `limit` where none does."""
    last = limit
    for found in pattern.finditer(text, start + (limit - start) // 2, limit):
        last = found.start()
    return last
