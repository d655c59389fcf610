"""Suspects for people: a table for a pipe or a file, and coloured text for a terminal.

In a terminal the text stands as it is, with its suspects marked, and under it a line per suspect
with the suggestions. Suspects are bold and underlined besides, so that they can be told without
colours too (`NO_COLOR`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from electra_dist.suspects.findings import JudgedText, Word

if TYPE_CHECKING:
    from rich.console import Console

#: Header of the table.
COLUMNS = ("text", "word", "start", "end", "probability", "suggestions")
_STYLE = "bold underline red"


def table_rows(number: int, judged: JudgedText) -> Iterator[tuple[str, ...]]:
    """A row per suspect of the text of this number, from 1."""
    for word in judged.suspects:
        yield (
            str(number),
            word.text,
            str(word.start),
            str(word.end),
            f"{word.probability:.4f}",
            ", ".join(suggestion.text for suggestion in word.suggestions),
        )


def print_marked(console: Console, judged: JudgedText) -> None:
    """A text for a terminal, control characters in it made visible."""
    from rich.text import Text

    shown = Text()
    place = 0
    for word in judged.suspects:
        shown.append(_visible(judged.text[place : word.start]))
        shown.append(_visible(word.text), style=_STYLE)
        place = word.end
    shown.append(_visible(judged.text[place:]))
    console.print(shown, soft_wrap=True)
    for word in judged.suspects:
        console.print(_line(word), style="dim", soft_wrap=True, markup=False, highlight=False)


def _line(word: Word) -> str:
    parts = [f"    {_visible(word.text)}  {word.probability:.2f}"]
    if word.suggestions:
        suggestions = [f"{_visible(one.text)} {one.probability:.2f}" for one in word.suggestions]
        parts.append(", ".join(suggestions))
    return "  ->  ".join(parts)


def _visible(text: str) -> str:
    """No character in it drives the terminal."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else f"\\x{ord(character):02x}"
        for character in text
    )
