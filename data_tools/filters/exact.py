"""Drops a document whose text an earlier one has already."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data_tools.filters.document import Document
from data_tools.filters.kinds import KeyFilter, parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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

        text = document.text
        if not self.white_space:
            text = " ".join(text.split())
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return np.frombuffer(digest, dtype="<u8").reshape(1, 2)
