"""Multiple-choice examples: what a label means, lists and columns, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.choices.reading import choice_of, read_choices

COLUMNS = Columns("text", "choices", "label")


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("label", "right"),
    [
        (0, 0),
        (2, 2),
        ("red", 1),
        ("1", 1),
        ("1.0", 1),
        (-1, None),
        ("-1", None),
        (None, None),
        ("", None),
    ],
)
def test_a_label_is_an_index_or_the_choice_itself(label: Any, right: int | None) -> None:
    row = {"text": "t", "choices": ["green", "red", "blue"], "label": label}
    assert choice_of("here", row, COLUMNS).right == right


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (3, "expected the right choice itself, or its index from 0 to 2"),
        (-2, "expected the right choice itself"),
        (True, "expected the right choice itself"),
        (1.0, "expected the right choice itself"),
        ("yellow", "expected the right choice itself"),
        ("0", r"which may mean the choices \[0, 2\]; write an index"),
    ],
)
def test_a_label_that_is_no_choice_is_refused(label: Any, words: str) -> None:
    row = {"text": "t", "choices": ["2", "1", "0"], "label": label}
    with pytest.raises(DataError, match=f"here: 'label' is .*{words}"):
        choice_of("here", row, COLUMNS)


def test_a_number_of_json_is_always_an_index() -> None:
    row = {"text": "t", "choices": ["2", "1", "0"], "label": 0}
    assert choice_of("here", row, COLUMNS).right == 0


def test_tables_have_a_column_per_choice(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        'text,a,b,c,label\n"one, two",x,y,z,b\nthree,x,y,,0\nfour,x,y,z,z\n', encoding="utf-8"
    )
    found = read_choices(path, COLUMNS, "refuse")
    assert [one.candidates for one in found] == [("x", "y", "z"), ("x", "y"), ("x", "y", "z")]
    assert [one.right for one in found] == [1, 0, 2]
    assert [one.line for one in found] == [2, 3, 4]


def test_the_columns_of_the_choices_are_named_with_commas(tmp_path: Path) -> None:
    path = tmp_path / "swag.csv"
    path.write_text("sent,ending0,ending1,gold\nHe,sits,runs,1\n", encoding="utf-8")
    (one,) = read_choices(path, Columns("sent", "ending0,ending1", "gold"), "refuse")
    assert (one.text, one.candidates, one.right) == ("He", ("sits", "runs"), 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": None}, "'text' is None; expected a text"),
        ({"choices": "ab"}, "'choices' is 'ab'; expected a list"),
        ({"choices": ["a"]}, "1 choices; expected from 2 to 1,000"),
        ({"choices": []}, "0 choices; expected from 2"),
        ({"choices": ["a", 3]}, "'choice 1' is 3; expected the text of a choice"),
        ({"choices": ["a", " ", "b"]}, "'choice 1' is ' '; expected the text of a choice"),
        ({"choices": None}, "0 choices; expected from 2"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    good = {"text": "t", "choices": ["a", "b"], "label": 1}
    path = written(tmp_path / "c.jsonl", good, good | change)
    with pytest.raises(DataError, match=f"c.jsonl, line 2: {words}"):
        read_choices(path, COLUMNS)


def test_what_has_no_label_is_refused_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {"text": "t", "choices": ["a", "b"]}
    path = written(tmp_path / "c.jsonl", bare, bare | {"label": 1}, bare)
    with pytest.raises(DataError, match=r"2 of 3 examples have no label \(line 1, 3\)"):
        read_choices(path, COLUMNS, "refuse")
    assert len(read_choices(path, COLUMNS, "keep")) == 3
    assert [one.right for one in read_choices(path, COLUMNS, "drop")] == [1]
    assert "they are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="holds no examples"):
        read_choices(written(tmp_path / "d.jsonl", bare), COLUMNS, "drop")
