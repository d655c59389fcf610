"""Pairs of texts, read from a table or JSON lines.

    text, pair             they belong together: a question and its answer
    text, pair, negative   the same, and a text that does not belong to the first; in JSON lines
                           a list of such texts too
    text, pair, label      how much they belong together: any number, or 0 and 1

All rows of a file are of one kind. Comes in: a path. Goes out: a `PairSet`, in which each
different text has one number, so that it goes through a model once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.console import warn
from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns, Unlabelled, one_label, read_rows, text_of

NEGATIVE = "negative"
_SHOWN_LINES = 5


@dataclass(frozen=True)
class PairRow:
    """One row; `pair` is None where it is a text alone, `label` where it has no score."""

    text: str
    pair: str | None = None
    negatives: tuple[str, ...] = ()
    label: float | None = None
    line: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them, in the order of the columns."""
        if self.pair is None:
            return (self.text,)
        return (self.text, self.pair, *self.negatives)


@dataclass(frozen=True)
class PairSet:
    """`queries`, `positives` and each of `negatives` are numbers in `texts`.

    queries    (P,) the first text of each pair
    positives  (P,) the second one
    negatives  of each pair, the texts that do not belong to the first; empty without
    labels     (P,) the scores of the pairs; None where the pairs are such that belong together
    """

    texts: tuple[str, ...]
    queries: NDArray[np.int64]
    positives: NDArray[np.int64]
    negatives: tuple[tuple[int, ...], ...]
    labels: NDArray[np.float64] | None

    @classmethod
    def of_rows(cls, rows: Sequence[PairRow]) -> PairSet:
        """Of rows that all have a pair; and all have a label, or none has."""
        numbers: dict[str, int] = {}

        def number(text: str) -> int:
            return numbers.setdefault(text, len(numbers))

        numbered = [[number(text) for text in row.texts] for row in rows]
        labels = [row.label for row in rows if row.label is not None]
        return cls(
            texts=tuple(numbers),
            queries=np.array([query for query, *_ in numbered]),
            positives=np.array([positive for _, positive, *_ in numbered]),
            negatives=tuple(tuple(negatives) for _, _, *negatives in numbered),
            labels=np.array(labels) if labels else None,
        )

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def kind(self) -> str:
        """In words."""
        if self.labels is not None:
            return "scored pairs"
        if any(self.negatives):
            return "triples"
        return "pairs"

    @property
    def main_score(self) -> str:
        """The score that chooses between seeds and layers; higher is better."""
        if self.labels is None:
            return "mrr"
        return "spearman"

    @cached_property
    def known_positives(self) -> dict[int, set[int]]:
        """All texts that belong to a query, over all its pairs."""
        known: dict[int, set[int]] = {}
        for query, positive in zip(self.queries.tolist(), self.positives.tolist(), strict=True):
            known.setdefault(query, set()).add(positive)
        return known

    def summary(self) -> str:
        """What the file holds, in words."""
        words = f"{len(self):,} {self.kind} of {len(self.texts):,} different texts"
        if self.labels is None:
            return words
        low = self.labels.min()
        high = self.labels.max()
        return f"{words}, labels from {low:g} to {high:g}, mean {self.labels.mean():g}"


def read_pairs(path: Path, columns: Columns, unlabelled: Unlabelled = "refuse") -> PairSet:
    """The pairs of a file. Raises `DataError` naming file and line: what `read_rows` raises, a
    label that is no number or is missing, a row with a label and a negative, no pairs.
    """
    if path.suffix == ".txt":
        raise DataError(
            f"{path}: plain text has no pairs; give a file ending in .tsv, .csv, .jsonl"
        )
    rows = list(read_pair_rows(path, columns))
    if not rows:
        raise DataError(f"{path}: holds no pairs")
    for row in rows:
        if row.pair is None:
            raise DataError(
                f"{path}, line {row.line}: has no {columns.pair!r}; name the columns with `text`,"
                " `pair` and `label`"
            )
    if any(row.label is not None for row in rows):
        rows = _labelled_ones(path, rows, unlabelled)
    return PairSet.of_rows(rows)


def read_pair_rows(path: Path, columns: Columns) -> Iterator[PairRow]:
    """Each row of a file; a line of plain text, or a row without a pair, is a text alone."""
    if path.suffix == ".txt":
        columns = Columns()
    for line, row in read_rows(path):
        pair = None
        if columns.pair and row.get(columns.pair) is not None:
            pair = text_of(path, line, row, columns.pair)
        found = PairRow(
            text=text_of(path, line, row, columns.text),
            pair=pair,
            negatives=_negatives(path, line, row.get(NEGATIVE)),
            label=_score(path, line, one_label(path, line, row.get(columns.label))),
            line=line,
        )
        if found.negatives and found.label is not None:
            raise DataError(
                f"{path}, line {line}: has a {NEGATIVE} and a {columns.label}; give one of them"
            )
        yield found


def _negatives(path: Path, line: int, value: Any) -> tuple[str, ...]:
    """None of them where the field is empty or missing."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise DataError(f"{path}, line {line}: {NEGATIVE} is {value!r}; expected a text or texts")


def _score(path: Path, line: int, label: str | None) -> float | None:
    if label is None:
        return None
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{path}, line {line}: label {label!r}; expected a finite number: how much the texts"
            " belong together"
        )
    return value


def _labelled_ones(path: Path, rows: Sequence[PairRow], unlabelled: Unlabelled) -> list[PairRow]:
    missing = [row.line for row in rows if row.label is None]
    if not missing:
        return list(rows)
    shown = ", ".join(map(str, missing[:_SHOWN_LINES]))
    if len(missing) > _SHOWN_LINES:
        shown += ", ..."
    found = f"{len(missing):,} of {len(rows):,} pairs have no label (line {shown})"
    if unlabelled == "refuse":
        raise DataError(f"{path}: {found}; label them, or leave them out with `drop_unlabelled`")
    warn(f"{path}: {found}; they are left out")
    return [row for row in rows if row.label is not None]
