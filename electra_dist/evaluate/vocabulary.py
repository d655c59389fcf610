"""The generator as a classifier over the vocabulary: precision, recall and F1 of its most likely
token at the masked positions.

Comes in: the original and the most likely token of each masked position, micro-batch after
micro-batch. Goes out: three counts for each entry of the vocabulary, and the scores of them. No
answer is kept: the memory is that of the vocabulary, however much text is read.

The scores are those of scikit-learn's `precision_recall_fscore_support` with `zero_division=0`. Its
classes are the entries that occur as an original or as a most likely token. Counts are whole
numbers, so that adding them in another order gives the same scores.

Letters: M masked positions, V vocabulary, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1: the plain mean over the classes (macro), and the mean weighted by
    how often each class is the original (weighted).
    """

    classes: int
    precision_macro: float
    recall_macro: float
    f1_macro: float
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float


@dataclass(frozen=True)
class Confusion:
    """How often each entry of the vocabulary is right, is the original, is the most likely one;
    each (V,).
    """

    hits_v: Counts
    originals_v: Counts
    likeliest_v: Counts

    @classmethod
    def empty(cls, vocab_size: int) -> Confusion:
        """Of no position."""
        return cls(*(np.zeros(vocab_size, np.int64) for _ in range(3)))

    def add(self, originals_m: npt.NDArray[np.int32], likeliest_m: npt.NDArray[np.int32]) -> None:
        """Count the positions of a micro-batch."""
        entries = len(self.hits_v)
        right_m = originals_m == likeliest_m
        self.hits_v[:] += np.bincount(originals_m[right_m], minlength=entries)
        self.originals_v[:] += np.bincount(originals_m, minlength=entries)
        self.likeliest_v[:] += np.bincount(likeliest_m, minlength=entries)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.hits_v + other.hits_v,
            self.originals_v + other.originals_v,
            self.likeliest_v + other.likeliest_v,
        )

    def scores(self) -> ClassScores:
        """The scores; there must be a position."""
        is_class_v = (self.originals_v > 0) | (self.likeliest_v > 0)
        hits_c = self.hits_v[is_class_v]
        originals_c = self.originals_v[is_class_v]
        likeliest_c = self.likeliest_v[is_class_v]

        precision_c = _divided(hits_c, likeliest_c)
        recall_c = _divided(hits_c, originals_c)
        f1_c = _divided(2 * hits_c, likeliest_c + originals_c)

        return ClassScores(
            classes=len(hits_c),
            precision_macro=float(precision_c.mean()),
            recall_macro=float(recall_c.mean()),
            f1_macro=float(f1_c.mean()),
            precision_weighted=float(np.average(precision_c, weights=originals_c)),
            recall_weighted=float(np.average(recall_c, weights=originals_c)),
            f1_weighted=float(np.average(f1_c, weights=originals_c)),
        )


def _divided(part_c: Counts, whole_c: Counts) -> npt.NDArray[np.float64]:
    """`part_c / whole_c`, 0 where `whole_c` is 0."""
    return np.divide(part_c, whole_c, out=np.zeros(len(part_c)), where=whole_c > 0)
