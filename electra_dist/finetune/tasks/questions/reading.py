"""Questions from a file, checked: SQuAD (1.1 or 2.0) or JSON lines in, `Question`s out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_dist.errors import DataError
from electra_dist.files.reading import open_regular


@dataclass(frozen=True)
class Question:
    """A question on a context; without answers where it cannot be answered from there, or where
    nobody has labelled it.

    `context[start : start + len(answer)] == answer` for each of `answers` and `starts`, and no
    answer is blank.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


def read_questions(path: Path, labelled: bool) -> list[Question]:
    """The questions of `path`, in order: SQuAD 1.1 or 2.0 (`.json`), or one question a line
    (`.jsonl`).

    A line is `{"question", "context"}` with, where known, "id" (otherwise the number of the line)
    and "answers", a list of `{"text", "answer_start"}` as in SQuAD; an empty one means that the
    context does not answer the question. With `labelled`, every question must say what its answers
    are. Raises `DataError` for what is not so.
    """
    entries = list(_entries(path))
    if not entries:
        raise DataError(f"{path}: no question in this file; expected at least one")
    questions: dict[str, Question] = {}
    for where, context, entry in entries:
        question = _question(where, context, entry, labelled)
        if question.id in questions:
            raise DataError(
                f"{where}: question {question.id!r} is there twice; expected an id of its own for"
                " each"
            )
        questions[question.id] = question
    if labelled and not any(
        entry.get("answers") or entry.get("is_impossible") for _, _, entry in entries
    ):
        raise DataError(
            f"{path}: no question has an answer or is marked `is_impossible`; expected labelled"
            " questions"
        )
    return list(questions.values())


def question_of(place: str, entry: Mapping[str, Any]) -> Question:
    """One question, as a line of a file has it; its id is `place` where it has none. Raises
    `DataError`.
    """
    return _question(place, entry.get("context"), {"id": place, **entry}, labelled=False)


def _entries(path: Path) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(where it stands, context, the object with the question) for each question of a file."""
    if path.suffix not in (".json", ".jsonl"):
        raise DataError(
            f"{path}: unknown format of questions; expected a SQuAD file (.json) or JSON lines"
            " (.jsonl)"
        )
    try:
        with open_regular(path, follow=True) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}; expected a file of UTF-8 text"
        ) from error
    if path.suffix == ".json":
        yield from _squad_entries(path, _parse(str(path), text))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            entry = _typed(where, "the line", _parse(where, line), dict)
            yield where, entry.get("context"), {"id": str(number), **entry}


def _squad_entries(path: Path, content: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    articles = _member(str(path), content, "data")
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_member(f"{path}: data[{a}]", article, "paragraphs")):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            for q, entry in enumerate(_member(where, paragraph, "qas")):
                full = f"{where}.qas[{q}]"
                yield full, paragraph.get("context"), _typed(full, "the question", entry, dict)


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); it starts with {short(text)}") from error


def short(value: Any) -> str:
    """`value` as Python writes it, of at most 80 characters, for an error."""
    text = repr(value)
    if len(text) <= 80:
        return text
    return f"{text[:77]}..."


def _typed(where: str, name: str, value: Any, kind: type) -> Any:
    """`value` if it is of the JSON type `kind`; a boolean is no number."""
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    expected = {
        str: "a string",
        int: "a whole number",
        list: "a list",
        dict: "an object",
        bool: "true or false",
    }[kind]
    raise DataError(f"{where}: {name} is {short(value)}; expected {expected}")


def _member(where: str, parent: Any, key: str) -> list[Any]:
    """The list under `key`, as SQuAD nests them."""
    content = _typed(where, "the value", parent, dict)
    items: list[Any] = _typed(where, f"`{key}`", content.get(key), list)
    return items


def _question(where: str, context: Any, entry: Mapping[str, Any], labelled: bool) -> Question:
    name = _typed(where, "`id`", entry.get("id"), str)
    where = f"{where}, question {name!r}"
    question = _typed(where, "`question`", entry.get("question"), str)
    if not _typed(where, "`context`", context, str).strip():
        raise DataError(f"{where}: `context` is {short(context)}; expected some text")
    impossible = _typed(where, "`is_impossible`", entry.get("is_impossible", False), bool)
    empty = "answers" not in entry or ("is_impossible" in entry and not entry["answers"])
    if labelled and empty and not impossible:
        raise DataError(
            f"{where}: no `answers`; expected them, or `is_impossible`, in a file of labelled"
            " questions"
        )
    found = [
        _answer(where, context, a)
        for a in _typed(where, "`answers`", entry.get("answers", []), list)
    ]
    if impossible and found:
        raise DataError(
            f"{where}: `is_impossible` with the answer {short(found[0][0])}; expected no answers"
        )
    return Question(
        name,
        question,
        context,
        tuple(text for text, _ in found),
        tuple(start for _, start in found),
    )


def _answer(where: str, context: str, entry: Any) -> tuple[str, int]:
    answer = _typed(where, "an answer", entry, dict)
    text = _typed(where, "`text` of an answer", answer.get("text"), str)
    start = _typed(where, "`answer_start`", answer.get("answer_start"), int)
    if not text.strip():
        raise DataError(
            f"{where}: an answer is {text!r}; expected some text (no answers: an empty list)"
        )
    if start >= 0:
        there = context[start : start + len(text)]
    else:
        there = ""
    if there != text:
        raise DataError(
            f"{where}: answer {short(text)} is not at character {start}, where {short(there)}"
            " stands"
        )
    return text, start
