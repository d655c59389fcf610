"""Drops what repeats itself: the same lines, paragraphs or runs of words again and again.

Three measures, each a share of the document: lines and paragraphs that were there before; the
most frequent run of 2, 3 or 4 words; words in a run of 5 to 10 words that was there before. The
characters of runs are those of their words; a word in two repeated runs counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from data_tools.filters.document import Document
from data_tools.filters.kinds import TextFilter, parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TOP = (2, 3, 4)
_LONGEST = 10


@dataclass(frozen=True)
class Repetition(TextFilter):
    """The repetition filter of Gopher; 1 as a limit never drops anything."""

    name: ClassVar[str] = "repetition"
    drops: ClassVar[str] = "lines, paragraphs or runs of words that repeat"
    source: ClassVar[str] = "Gopher (Rae et al. 2021, arXiv 2112.11446), A.1.1, table A1"

    lines: float = parameter(0.30, "largest share of lines that were there before")
    paragraphs: float = parameter(0.30, "the same of paragraphs")
    line_characters: float = parameter(0.20, "largest share of characters in such lines")
    paragraph_characters: float = parameter(0.20, "the same of paragraphs")
    top_2: float = parameter(0.20, "largest share of characters in the most frequent 2 words")
    top_3: float = parameter(0.18, "the same of 3 words")
    top_4: float = parameter(0.16, "the same of 4 words")
    repeated_5: float = parameter(0.15, "largest share of characters in repeated runs of 5 words")
    repeated_6: float = parameter(0.14, "the same of 6 words")
    repeated_7: float = parameter(0.13, "the same of 7 words")
    repeated_8: float = parameter(0.12, "the same of 8 words")
    repeated_9: float = parameter(0.11, "the same of 9 words")
    repeated_10: float = parameter(0.10, "the same of 10 words")

    def check(self) -> None:
        super().check()
        self.check_shares(*self.values)

    def why_not(self, document: Document) -> str | None:
        """The first share that is too large: lines and paragraphs, then runs of words."""
        for name, texts in (("line", document.lines), ("paragraph", document.paragraphs)):
            repeated = repeated_texts(texts)
            if repeated.texts > getattr(self, f"{name}s"):
                return f"{name}s"
            if repeated.characters > getattr(self, f"{name}_characters"):
                return f"{name}_characters"

        for name, share in repeated_words(document.words):
            if share > getattr(self, name):
                return name
        return None


class Repeated(NamedTuple):
    """Shares of texts that were there before: by number, and by characters."""

    texts: float
    characters: float


def repeated_texts(texts: Sequence[str]) -> Repeated:
    """Of lines or paragraphs: how much was there before."""
    if len(texts) < 2:
        return Repeated(0.0, 0.0)
    first = set(texts)
    total = sum(map(len, texts))
    return Repeated(1 - len(first) / len(texts), 1 - sum(map(len, first)) / total)


def repeated_words(words: Sequence[str]) -> Iterator[tuple[str, float]]:
    """(parameter, share of the characters) for runs of 2 to 10 words;
    ends early where nothing repeats any more.
    """
    import numpy as np

    known: dict[str, int] = {}
    ids = np.fromiter((known.setdefault(word, len(known)) for word in words), np.int64, len(words))
    ends = np.concatenate([[0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))])
    runs = ids  # the run of n words that starts at each word, as a number
    for count in range(2, _LONGEST + 1):
        if len(ids) < count:
            return
        runs = runs[:-1] * len(known) + ids[count - 1 :]
        _, first, runs, times = np.unique(
            runs, return_index=True, return_inverse=True, return_counts=True
        )
        if times.max() < 2:
            return
        sizes = ends[count:] - ends[:-count]
        if count in _TOP:
            # of those that are equally frequent, the one with the most characters
            most = sizes[first[times == times.max()]].max() * times.max()
            yield f"top_{count}", min(1.0, most / ends[-1])
        elif count > _TOP[-1]:
            again = first[runs] != np.arange(len(runs))
            yield f"repeated_{count}", _covered(again, count, ends) / ends[-1]


def _covered(starts: npt.NDArray[np.bool_], count: int, ends: npt.NDArray[np.int64]) -> int:
    """Characters of the words in the runs of `count` words that begin where `starts` is true."""
    import numpy as np

    changes = np.zeros(len(ends), dtype=np.int64)
    changes[: len(starts)] += starts
    changes[count : count + len(starts)] -= starts
    inside = np.cumsum(changes)[:-1] > 0
    return int(np.diff(ends)[inside].sum())
