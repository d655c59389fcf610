"""What a person and a program are shown."""

from __future__ import annotations

import io

from rich.console import Console

from electra_dist.suspects.findings import JudgedText, Suggestion, Word
from electra_dist.suspects.shown import print_marked, table_rows

TEXT = "A [red]teh\x1b[2J word"
JUDGED = JudgedText(
    TEXT,
    (
        Word("A", 0, 1, 0.1, False),
        Word("teh", 7, 10, 0.9, True, (Suggestion("the", 0.5), Suggestion("[b]", 0.25))),
    ),
)


def printed(**settings: bool) -> str:
    file = io.StringIO()
    print_marked(Console(file=file, force_terminal=True, width=60, **settings), JUDGED)  # type: ignore[arg-type]
    return file.getvalue()


def test_a_terminal_shows_the_text_as_it_is_with_marks() -> None:
    lines = printed().splitlines()
    assert lines[0] == "A [red]\x1b[1;4;31mteh\x1b[0m\\x1b[2J word"
    assert "teh  0.90  ->  the 0.50, [b] 0.25" in lines[1]


def test_without_colours_a_suspect_can_still_be_told() -> None:
    assert "\x1b[1;4mteh\x1b[0m" in printed(no_color=True)


def test_a_table_has_a_row_per_suspect() -> None:
    assert list(table_rows(3, JUDGED)) == [("3", "teh", "7", "10", "0.9000", "the, [b]")]


def test_the_object_for_programs_has_every_word() -> None:
    content = JUDGED.content()
    assert content["text"] == TEXT
    assert [word["word"] for word in content["words"]] == ["A", "teh"]
    assert content["words"][1]["suggestions"][0] == {"text": "the", "probability": 0.5}
