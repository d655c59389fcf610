"""The text that a tokenizer learns from: a bounded part of the corpus, spread evenly over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.clean import normalise
from data_tools.sources import Inputs, find_inputs, read_pieces, split_parts
from electra_dist.console import Progress

#: SentencePiece leaves out longer lines (it counts bytes).
_MAX_LINE = 4000


class Sample:
    """Text of at most about `budget` characters, evenly from all parts of `inputs`; it can be read
    again. `characters` is what the last reading gave.
    """

    def __init__(
        self, inputs: Sequence[str | Path] | Inputs, budget: int, progress: Progress
    ) -> None:
        parts = split_parts(find_inputs(inputs), part_bytes=8 * 2**20)
        total = sum(part.text_bytes for part in parts)
        keep = max(1, min(len(parts), len(parts) * budget // max(1, total)))
        self._parts = [parts[index * len(parts) // keep] for index in range(keep)]
        self._share = budget // keep
        self._progress = progress
        self.characters = 0

    def documents(self) -> Iterator[str]:
        """The documents, long ones in pieces, as `data build` hands them to the tokenizer."""
        self.characters = 0
        for done, part in enumerate(self._parts, start=1):
            left = self._share
            for piece in read_pieces(part):
                text = normalise(piece.text)
                self.characters += len(text)
                left -= len(text)
                yield text
                if left <= 0:
                    break
            self._progress("tokenizer sample", done, len(self._parts))


def cut(text: str) -> Iterator[str]:
    """Pieces of `text` that SentencePiece does not skip as too long,
    cut at white space if possible.
    """
    if text.isascii():
        limit = _MAX_LINE
    else:
        limit = _MAX_LINE // 4
    while len(text) > limit:
        at = max(text.rfind("\n", 1, limit), text.rfind(" ", 1, limit))
        if at < 0:
            at = limit
        yield text[:at]
        text = text[at:]
    if text.strip():
        yield text
