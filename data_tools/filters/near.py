"""Drops a document that is nearly the same as an earlier one: MinHash with banding.

The runs of `ngram` words of a document are a set. MinHash gives `bands x rows` numbers; two
documents agree in each with a probability of their Jaccard similarity s, and in all numbers of at
least one band with 1 - (1 - s^rows)^bands. Such a pair is near. With the defaults that is 0.05 at
s = 0.5, 0.56 at 0.7, 0.77 at 0.75, 0.92 at 0.8 and 0.999 at 0.9.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data_tools.filters.document import Document
from data_tools.filters.kinds import KeyFilter, parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Of the hash functions: the same signatures in every corpus.
_SEED = 1


@dataclass(frozen=True)
class Near(KeyFilter):
    """Texts that share most of their runs of words with an earlier one."""

    name: ClassVar[str] = "near"
    drops: ClassVar[str] = "texts that are nearly those of an earlier document"
    source: ClassVar[str] = (
        "FineWeb (Penedo et al. 2024, arXiv 2406.17557), section 3.4: MinHash of 5-grams, 14 bands"
        " of 8"
    )
    needs: ClassVar[tuple[str, ...]] = ("rensa",)
    reason: ClassVar[str] = "nearly the same text"

    ngram: int = parameter(5, "words of a run")
    bands: int = parameter(14, "bands: more find less similar pairs")
    rows: int = parameter(8, "numbers per band: more leave less similar pairs alone")

    @property
    def columns(self) -> int:
        return self.bands

    def check(self) -> None:
        super().check()
        for name in ("ngram", "bands", "rows"):
            if getattr(self, name) < 1:
                raise self.refusal(name, "at least 1")
        if self.bands * self.rows > 4096:
            raise self.refusal("bands", f"at most 4,096 numbers in all, with rows={self.rows}")

    def keys(self, document: Document) -> npt.NDArray[np.uint64] | None:
        runs = shingles(document.bare_words, self.ngram)
        if not runs:
            return None
        return self._band_keys(runs)

    def _band_keys(self, runs: list[str]) -> npt.NDArray[np.uint64]:
        """(bands, 1): a hash of each band of the signature."""
        import numpy as np
        from rensa import RMinHash

        signature = RMinHash(self.bands * self.rows, _SEED)
        signature.update(runs)
        numbers = np.array(signature.digest(), dtype="<u4").reshape(self.bands, self.rows)
        hashed = b"".join(
            hashlib.blake2b(band.tobytes(), digest_size=8).digest() for band in numbers
        )
        return np.frombuffer(hashed, dtype="<u8").reshape(self.bands, 1)


def shingles(words: list[str], ngram: int) -> list[str]:
    """Every run of `ngram` words, as often as it is there; a shorter text is one run."""
    if not words:
        return []
    if len(words) < ngram:
        return [" ".join(words)]
    return [" ".join(run) for run in zip(*(words[start:] for start in range(ngram)), strict=False)]
