"""Keeps documents in some languages, and drops the others."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data_tools.filters.document import Document
from data_tools.filters.kinds import TextFilter, parameter

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: Characters of a document that decide.
_LOOKED_AT = 2000


@dataclass(frozen=True)
class Language(TextFilter):
    """The most probable language of a document, by py3langid (Naive Bayes over byte n-grams)."""

    name: ClassVar[str] = "language"
    drops: ClassVar[str] = "other languages, and what is in none for sure"
    source: ClassVar[str] = (
        "FineWeb (Penedo et al. 2024, arXiv 2406.17557), section 3.3: English with at least 0.65"
    )
    needs: ClassVar[tuple[str, ...]] = ("py3langid",)

    language: str = parameter("en", "ISO 639-1 codes of what is kept, joined by +")
    min_probability: float = parameter(0.65, "smallest probability of that language")

    @property
    def kept(self) -> frozenset[str]:
        """The languages that are kept."""
        return frozenset(self.language.split("+"))

    def check(self) -> None:
        """The languages are known, and the probability is one."""
        super().check()
        self.check_shares("min_probability")
        known = set(_identifier().labels)
        if unknown := sorted(self.kept - known):
            raise self.refusal(
                "language",
                f"codes joined by +, {unknown[0]!r} is none of {' '.join(sorted(known))}",
            )

    def why_not(self, document: Document) -> str | None:
        found, probability = _identifier().classify(document.text[:_LOOKED_AT])
        if found not in self.kept:
            return "language"
        if probability < self.min_probability:
            return "min_probability"
        return None


@functools.cache
def _identifier() -> LanguageIdentifier:
    """The model that comes with py3langid, loaded once per process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
