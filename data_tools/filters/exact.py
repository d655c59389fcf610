"""Drops a document whose text an earlier one has already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data_tools.filters.document import Document
from data_tools.filters.kinds import KeyFilter, parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


#: Characters that are looked at together.
_PIECE = 1_000_000


@dataclass(frozen=True)
class Exact(KeyFilter):
    """Equal texts, by a hash of 128 bits (BLAKE2b)."""

    name: ClassVar[str] = "exact"
    drops: ClassVar[str] = "texts that an earlier document has"
    source: ClassVar[str] = "Gopher (Rae et al. 2021, arXiv 2112.11446), A.1.1, deduplication"
    key_words: ClassVar[int] = 2
    reason: ClassVar[str] = "same text"

    white_space: bool = parameter(False, "white space counts as part of the text")

    def keys(self, document: Document) -> npt.NDArray[np.uint64]:
        import numpy as np

        digest = hashlib.blake2b(digest_size=16)
        for piece in self._pieces(document.text):
            digest.update(piece.encode("utf-8", "surrogatepass"))
        return np.frombuffer(digest.digest(), dtype="<u8").reshape(1, 2)

    def _pieces(self, text: str) -> Iterator[str]:
        """What is hashed, in pieces: the words of a long text would take ten times its memory."""
        started = False
        apart = False  # white space since the last word
        for start in range(0, len(text), _PIECE):
            piece = text[start : start + _PIECE]
            if self.white_space:
                yield piece
                continue
            words = piece.split()
            if words:
                if started and (apart or piece[0].isspace()):
                    yield " "
                yield " ".join(words)
                started = True
                apart = False
            apart = apart or piece[-1].isspace()
