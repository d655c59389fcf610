"""Documents of any size as a stream of pieces: normalised, cut for the tokenizer.

A long document is never in memory as a whole. What comes out does not depend on where the reader
cut it: `NormalStream` gives the text that `normalise` would give for all of it, and `chunks` cuts
that text at places of its own.

A chunk ends before a single space between two words, where there is one. A tokenizer that splits at
spaces gives the same ids for the chunks as for the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_tools.clean import normalise

#: Characters of a chunk that the tokenizer gets at most.
CHUNK_CHARACTERS = 2**16
#: A character that no normalisation changes or joins with its neighbours.
_FENCE = "0"
_SPACE_BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
_WHITE_SPACE = re.compile(r"\s")


class NormalStream:
    """Normalises a document piece by piece: the results together are `normalise` of all of it."""

    def __init__(self) -> None:
        self._started = False
        self._spaces = ""

    def add(self, text: str) -> str:
        """The next piece, normalised; white space at its end comes with the piece after."""
        fenced = normalise(_FENCE + text + _FENCE)
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
