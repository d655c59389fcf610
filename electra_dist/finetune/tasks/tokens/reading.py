"""Readers of sentences with a label for each word.

    .conll .bio .iob .iob2 .conllu   a word per line (`columns`)
    .jsonl                           an object per line with two lists, `words` and `labels`; or
                                     with a `text` alone, whose words are found
    .txt                             one text per line, blank ones too; no labels

Comes in: a path. Goes out: `Sentence`s in the order of the file. Everything is UTF-8.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from electra_dist.console import say, warn
from electra_dist.errors import DataError, nearest
from electra_dist.files.reading import open_regular
from electra_dist.finetune.labelled import Columns, Unlabelled
from electra_dist.finetune.tasks.tokens.columns import COLUMN_SUFFIXES, read_table
from electra_dist.finetune.tasks.tokens.sentences import (
    Sentence,
    sentence_of_text,
    sentence_of_words,
)

#: Names of the two lists unless others are given.
DEFAULT = Columns(text="words", label="labels")
#: The key of a text whose words are not given.
TEXT = "text"
_SUFFIXES = (*COLUMN_SUFFIXES, ".jsonl")
_MISSING = ("", "nan", "<na>")
_SHOWN_LINES = 5


def read_sentences(path: Path, columns: Columns, unlabelled: Unlabelled = "keep") -> list[Sentence]:
    """All sentences of a file; `unlabelled` says what becomes of those without labels.

    `columns` names the lists of JSON lines, or numbers columns from 1. Raises `DataError` naming
    file and line: no such file, an unknown suffix, another number of labels than of words, a word
    that is white space, labels that are missing, no words, text that is not UTF-8.
    """
    labelled = unlabelled != "keep"
    if path.suffix not in _SUFFIXES and (labelled or path.suffix != ".txt"):
        raise DataError(
            f"{path}: unknown format of words and labels; expected a file ending in"
            f" {', '.join(_SUFFIXES)}; rename one of columns to .conll"
        )
    if columns.pair:
        raise DataError(f"`pair` {columns.pair}: the words of a sentence are labelled, not a pair")
    try:
        with io.TextIOWrapper(
            open_regular(path, follow=True), encoding="utf-8-sig", newline="\n"
        ) as file:
            sentences = _sentences(path, file, columns, labelled)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 (byte {error.start} of a block): convert it first"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not any(sentence.spans for sentence in sentences):
        raise DataError(f"{path}: holds no words")
    if labelled:
        return _labelled_ones(path, sentences, unlabelled)
    return sentences


def sentence_of(fields: Mapping[str, Any], columns: Columns, place: str) -> Sentence:
    """One sentence from an object: a list of words and, where they are known, of labels; or a text.

    Raises `DataError`, which begins with `place`.
    """
    names = _list_names(columns)
    value = fields.get(names.text, fields.get(TEXT))
    if isinstance(value, str):
        return sentence_of_text(value)
    if not isinstance(value, list):
        wanted = nearest(names.text, fields)
        raise DataError(
            f"{place}: has no list {names.text!r} and no text {TEXT!r}{wanted}; found"
            f" {', '.join(map(str, fields)) or 'nothing'}. Name the lists with `text` and `label`"
        )
    words = [_word(place, word) for word in value]
    return sentence_of_words(words, _labels(place, fields.get(names.label), names, len(words)))


def _sentences(path: Path, file: TextIO, columns: Columns, labelled: bool) -> list[Sentence]:
    if path.suffix == ".txt":
        return [sentence_of_text(line.rstrip("\r\n"), at) for at, line in enumerate(file, 1)]
    if path.suffix == ".jsonl":
        return list(_of_json(path, file, columns))
    return _of_columns(path, file, columns, labelled)


def _of_json(path: Path, lines: Iterable[str], columns: Columns) -> Iterator[Sentence]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: is {type(row).__name__}; expected an object with words")
        found = sentence_of(row, columns, place)
        yield Sentence(found.text, found.spans, found.labels, (number,) * len(found.spans))


def _of_columns(
    path: Path, lines: Iterable[str], columns: Columns, labelled: bool
) -> list[Sentence]:
    word = _number("text", columns.text, DEFAULT.text, labelled)
    label = _number("label", columns.label, DEFAULT.label, labelled)
    table = read_table(path, lines, word, label)
    if labelled and table.label is None:
        raise DataError(
            f"{path}: has {table.columns} columns and no labels in column"
            f" {label or table.columns}; expected words and labels"
        )
    say(f"{path}: {table.summary()}")
    found = []
    for rows in table.sentences:
        words = [_word(f"{path}, line {row.line}", row.cells[table.word]) for row in rows]
        labels = None
        if table.label is not None:
            labels = [row.cells[table.label] for row in rows]
        if labels is not None and any(label.strip().lower() in _MISSING for label in labels):
            labels = None
        found.append(sentence_of_words(words, labels, [row.line for row in rows]))
    return found


def _number(role: str, name: str, default: str, labelled: bool) -> int | None:
    """The number of a column from 1; None for the usual one.

    A name is one of JSON lines; where the user has just given it, it is refused.
    """
    if name.isdecimal() and int(name) > 0:
        return int(name)
    if labelled and name != default:
        raise DataError(
            f"`{role}` {name}: columns of such a file have no names; give the number of one, from 1"
        )
    return None


def _list_names(columns: Columns) -> Columns:
    """The names of the lists; the usual ones in place of numbers of columns."""
    text = columns.text
    if text.isdecimal():
        text = DEFAULT.text
    label = columns.label
    if label.isdecimal():
        label = DEFAULT.label
    return Columns(text=text, label=label)


def _word(place: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: the word {value!r} is no text")
    if not value.strip():
        raise DataError(f"{place}: the word {value!r} is white space; leave it out, with its label")
    return value


def _labels(place: str, value: Any, names: Columns, words: int) -> list[str] | None:
    """The labels as text; None where one is missing."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise DataError(f"{place}: {names.label!r} is {value!r}; expected a list of labels")
    if len(value) != words:
        raise DataError(
            f"{place}: {words} words in {names.text!r}, but {len(value)} labels in"
            f" {names.label!r}; expected one for each"
        )
    labels = [_label(place, label) for label in value]
    if any(label.lower() in _MISSING for label in labels):
        return None
    return labels


def _label(place: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{place}: the label is {value!r}; expected a text or a number")
    return str(value).strip()


def _labelled_ones(
    path: Path, sentences: Sequence[Sentence], unlabelled: Unlabelled
) -> list[Sentence]:
    """Those with labels; raises `DataError` where the others are refused, or there are no more."""
    missing = [str(one.lines[0]) for one in sentences if one.labels is None and one.lines]
    known = [one for one in sentences if one.labels is not None]
    if not missing:
        return known
    shown = ", ".join(missing[:_SHOWN_LINES])
    if len(missing) > _SHOWN_LINES:
        shown += ", ..."
    found = (
        f"{path}: {len(missing):,} of {len(sentences):,} sentences have words without a label (line"
        f" {shown})"
    )
    if unlabelled == "refuse" or not known:
        raise DataError(f"{found}; label them, or leave them out with `drop_unlabelled`")
    warn(f"{found}; they are left out")
    return known
