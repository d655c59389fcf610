"""Queries and their candidates from a file, read from it whenever they are asked for.

    .jsonl     {"query": "...", "candidates": ["...", ...], "relevant": [0, 1, ...]} per line
    a folder   with news.tsv and behaviors.tsv, in the format of MIND (`mind`)

A file is read once and checked; what stays in memory is where each line begins, and for MIND the
titles. So a file may be larger than the memory.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_dist.errors import DataError, nearest
from electra_dist.files.reading import MIB, open_regular
from electra_dist.finetune.labelled import Columns, Unlabelled, check_missing
from electra_dist.finetune.tasks.ranking.mind import BEHAVIORS, MindParser

#: The highest grade: its gain is 2^grade - 1.
HIGHEST = 30
_LONGEST_LINE = 64 * MIB


@dataclass(frozen=True)
class Query:
    """A query and its candidates; `grades` says how relevant each is, 0 not at all, and is None
    where nobody has said it. `name` is that of the file, or the number of the line.
    """

    name: str
    text: str
    candidates: tuple[str, ...]
    grades: tuple[int, ...] | None = None

    @property
    def can_be_ordered(self) -> bool:
        """Whether its grades differ: otherwise every order is as good."""
        return self.grades is not None and len(set(self.grades)) > 1


#: A query of a line; the place of the line begins an error, and its number names the query.
Parser = Callable[[str, int, str], Query]


class Queries(Sequence[Query]):
    """The queries of a file, parsed from its lines whenever they are asked for.

    counts  how many candidates each has
    """

    def __init__(self, path: Path, parse: Parser, unlabelled: Unlabelled) -> None:
        """Check every line; raises `DataError` naming file and line."""
        self.counts = array("q")
        self._path = path
        self._parse = parse
        self._starts = array("q")
        self._ends = array("q")
        self._numbers = array("q")
        missing: list[int] = []
        try:
            self._file = open_regular(path, follow=True)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        end = 0
        number = 0
        while line := self._file.readline(_LONGEST_LINE + 1):
            number += 1
            start = end
            end += len(line)
            if len(line) > _LONGEST_LINE:
                raise DataError(
                    f"{path}, line {number}: is longer than {_LONGEST_LINE:,} bytes, the most that"
                    " a query with its candidates can have"
                )
            if not line.strip():
                continue
            query = self._query(number, line)
            if query.grades is None and unlabelled != "keep":
                missing.append(number)
                continue
            self.counts.append(len(query.candidates))
            self._starts.append(start)
            self._ends.append(end)
            self._numbers.append(number)
        check_missing(path, missing, len(self) + len(missing), unlabelled)
        if not len(self):
            raise DataError(f"{path}: holds no queries")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        size = self._ends[index] - self._starts[index]
        line = os.pread(self._file.fileno(), size, self._starts[index])
        return self._query(self._numbers[index], line)

    def _query(self, number: int, line: bytes) -> Query:
        place = f"{self._path}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place}: is not UTF-8 (byte {error.start} of the line): convert it first"
            ) from error
        return self._parse(place, number, text.rstrip("\r\n"))


def read_queries(path: Path, columns: Columns, unlabelled: Unlabelled = "keep") -> Queries:
    """The queries of JSON lines, or of MIND's `behaviors.tsv` or the folder that it lies in;
    raises `DataError`.
    """
    if path.is_dir():
        path = path / BEHAVIORS
    if path.name == BEHAVIORS:
        parser = MindParser(path.parent)

        def parse_mind(place: str, number: int, line: str) -> Query:
            return Query(*parser.parse(place, line))

        return Queries(path, parse_mind, unlabelled)
    if path.suffix != ".jsonl":
        raise DataError(
            f"{path}: unknown format; expected a file ending in .jsonl, or a folder with news.tsv"
            f" and {BEHAVIORS}"
        )

    def parse_json(place: str, number: int, line: str) -> Query:
        return query_of(place, _object(place, line), columns, str(number))

    return Queries(path, parse_json, unlabelled)


def query_of(place: str, fields: Mapping[str, Any], columns: Columns, name: str) -> Query:
    """One query from its fields; raises `DataError`, which begins with `place`."""
    text = fields.get(columns.text)
    if not isinstance(text, str):
        raise DataError(
            f"{place}: {columns.text!r} is {text!r}; expected a text{nearest(columns.text, fields)}"
        )
    listed = str(columns.pair)
    candidates = fields.get(listed)
    if not isinstance(candidates, list | tuple) or not candidates:
        raise DataError(f"{place}: {listed!r} is {candidates!r}; expected a list of texts")
    for number, candidate in enumerate(candidates):
        if not isinstance(candidate, str):
            raise DataError(
                f"{place}: number {number} of {listed!r} is {candidate!r}; expected a text"
            )
    grades = fields.get(columns.label)
    if grades is not None:
        _check_grades(f"{place}: {columns.label!r}", grades, len(candidates))
        grades = tuple(grades)
    return Query(str(fields.get("id", name)), text, tuple(candidates), grades)


def _check_grades(found: str, grades: Any, count: int) -> None:
    """Raise `DataError`, which begins with `found`, unless there is a grade for each candidate."""
    if not isinstance(grades, list | tuple) or len(grades) != count:
        raise DataError(f"{found} is {grades!r}; expected a list of {count} whole numbers")
    for grade in grades:
        if type(grade) is not int or not 0 <= grade <= HIGHEST:
            raise DataError(
                f"{found} holds {grade!r}; expected whole numbers from 0 (not relevant) to"
                f" {HIGHEST}"
            )


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: is {type(row).__name__}; expected an object with a query and candidates"
        )
    return row
