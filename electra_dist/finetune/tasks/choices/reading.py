"""Multiple-choice examples from a file.

    .jsonl        {"text": "...", "choices": ["...", ...], "label": 2}
    .csv, .tsv    the columns text, a, b, c, ... and label; others are named with `pair`, apart by
                  commas; empty ones at the end are no choices

A label that is a number of JSON is the index of the right choice, from 0. One that is a text is the
right choice itself, or the name of its column, or its index.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from electra_dist.errors import DataError, nearest
from electra_dist.finetune.labelled import Columns, Unlabelled, check_missing, read_rows

#: More choices than this are taken for a mistake.
MOST_CHOICES = 1000
_MISSING = ("", "nan", "<na>", "-1")


@dataclass(frozen=True)
class Choice:
    """A text and its choices; `right` is the index of the one that fits, None where nobody has
    said which.
    """

    text: str
    candidates: tuple[str, ...]
    right: int | None = None
    line: int = field(default=0, compare=False)


def read_choices(path: Path, columns: Columns, unlabelled: Unlabelled = "keep") -> list[Choice]:
    """All examples of a file, in order; `unlabelled` says what becomes of those without a label.

    Raises `DataError` naming file and line.
    """
    found = [choice_of(f"{path}, line {line}", row, columns, line) for line, row in read_rows(path)]
    missing = [one.line for one in found if one.right is None]
    check_missing(path, missing, len(found), unlabelled)
    if unlabelled == "drop":
        found = [one for one in found if one.right is not None]
    if not found:
        raise DataError(f"{path}: holds no examples")
    return found


def choice_of(place: str, row: Mapping[str, Any], columns: Columns, line: int = 0) -> Choice:
    """One example from its fields; raises `DataError`, which begins with `place`."""
    text = row.get(columns.text)
    if not isinstance(text, str):
        raise DataError(
            f"{place}: {columns.text!r} is {text!r}; expected a text{nearest(columns.text, row)}"
        )
    choices = _choices(place, row, columns)
    names = list(choices)
    label = row.get(columns.label)
    right = _right(f"{place}: {columns.label!r} is {label!r}", label, names, list(choices.values()))
    return Choice(text, tuple(choices.values()), right, line)


def _choices(place: str, row: Mapping[str, Any], columns: Columns) -> dict[str, str]:
    """The choices by the names of their columns, or by their indices where they are one list."""
    given = columns.pair or "choices"
    whole = row.get(given)
    if isinstance(whole, list):
        found = {f"choice {index}": choice for index, choice in enumerate(whole)}
    elif "," in given:
        found = {name: row.get(name) for name in given.split(",")}
    elif whole is None:
        found = {name: row[name] for name in _letters(row)}
    else:
        raise DataError(f"{place}: {given!r} is {whole!r}; expected a list of texts")
    while found and next(reversed(found.values())) in (None, ""):
        found.popitem()
    for name, choice in found.items():
        if not isinstance(choice, str) or not choice.strip():
            raise DataError(f"{place}: {name!r} is {choice!r}; expected the text of a choice")
    if not 2 <= len(found) <= MOST_CHOICES:
        raise DataError(
            f"{place}: {len(found)} choices; expected from 2 to {MOST_CHOICES:,}, as a list"
            f" {given!r}, or in the columns a, b, c, ... or those named with `pair`"
        )
    return found


def _letters(row: Mapping[str, Any]) -> list[str]:
    """The names a, b, c, ... as far as the row has them."""
    found: list[str] = []
    for letter in string.ascii_lowercase:
        if letter not in row:
            break
        found.append(letter)
    return found


def _right(found: str, label: Any, names: list[str], choices: list[str]) -> int | None:
    """The index of the right choice, None without one; `found` begins an error."""
    if label is None or (isinstance(label, str) and label.strip().lower() in _MISSING):
        return None
    if isinstance(label, int) and not isinstance(label, bool):
        meant = {label} & {-1, *range(len(choices))}
    elif isinstance(label, str):
        meant = _meant(label, names, choices)
    else:
        meant = set()
    if len(meant) > 1:
        raise DataError(f"{found}, which may mean the choices {sorted(meant)}; write an index")
    if not meant:
        raise DataError(
            f"{found}; expected the right choice itself, or its index from 0 to {len(choices) - 1}"
        )
    index = meant.pop()
    if index < 0:
        return None
    return index


def _meant(label: str, names: list[str], choices: list[str]) -> set[int]:
    """The indices of the choices that a label in words, or one of a table, can stand for."""
    found = {index for index, choice in enumerate(choices) if choice == label}
    found |= {index for index, name in enumerate(names) if name == label.strip()}
    index = label.strip().removesuffix(".0")
    if index.isdecimal() and index.isascii() and len(index) < 5 and int(index) < len(choices):
        found.add(int(index))
    return found
