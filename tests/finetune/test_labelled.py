"""Labelled files: every format gives the same examples,
and what is wrong is said with file and line.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns, Example, read_examples
from electra_dist.finetune.tasks.texts.labels import TextTask
from tests.support.toy_task import sentences, write_table

ROWS = [('it\'s "fine", he said', "a second, text", "1"), ("naïve", "b", "0")]
EXPECTED = [Example(text, pair, label) for text, pair, label in ROWS]
COLUMNS = Columns("text", "other", "label")


def write(path: Path, suffix: str) -> Path:
    file = path / f"data{suffix}"
    if suffix == ".tsv":
        lines = ["text\tother\tlabel", *("\t".join(row) for row in ROWS)]
    elif suffix == ".csv":
        lines = [
            "text,other,label",
            *(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in ROWS),
        ]
    else:
        lines = [json.dumps({"text": t, "other": o, "label": int(label)}) for t, o, label in ROWS]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    assert read_examples(write(tmp_path, suffix), COLUMNS, "refuse") == EXPECTED


def test_labels_that_are_there_are_kept_where_none_are_needed(tmp_path: Path) -> None:
    file = write(tmp_path, ".tsv")
    assert [e.label for e in read_examples(file, Columns())] == ["1", "0"]
    (tmp_path / "plain.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    found = read_examples(tmp_path / "plain.txt", Columns())
    assert found == [Example("one"), Example(""), Example("two")]


def test_a_table_with_quotes_of_its_own_reads_as_it_is(samples: Path) -> None:
    """Fields of a .tsv are never quoted: a quote is a character like any other."""
    path = samples / "reviews.tsv"
    content = path.read_text(encoding="utf-8")
    assert content.count('"') == 4

    plain = [line.split("\t") for line in content.splitlines()[1:]]
    found = read_examples(path, Columns(), "refuse")
    assert found == [Example(text, None, label) for text, label in plain]
    assert Counter(example.label for example in found) == {"0": 32, "1": 32}


def test_a_table_of_thousands_reads_whole(tmp_path: Path) -> None:
    rows = sentences(7000, seed=3)
    found = read_examples(write_table(tmp_path / "many.tsv", rows), Columns(), "refuse")
    assert found == [Example(text, None, label) for text, label in rows]
    assert {example.label for example in found} == {"pos", "neg"}


def test_pairs_with_numbers_read_as_they_are(samples: Path) -> None:
    """Quotes inside quotes, and a line break inside a field."""
    path = samples / "pairs.csv"
    with path.open(encoding="utf-8", newline="") as file:
        plain = list(csv.DictReader(file))
    assert len(plain) == 32
    assert any("\n" in row["second"] for row in plain)

    columns = Columns("first", "second", "similarity")
    found = read_examples(path, columns, "refuse")
    assert found == [Example(row["first"], row["second"], row["similarity"]) for row in plain]

    targets = TextTask(columns, None).targets(found, path)
    assert targets.tolist() == [float(row["similarity"]) for row in plain]
    assert 0.5 == targets.min() < targets.max() == 5


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xlsx", "x", ("unknown format", ".tsv")),
        ("a.json", "{}", ("unknown format", "`task` question-answering")),
        ("a.txt", "some text\n", ("no labels", ".tsv")),
        ("a.tsv", "text\tlabel\n", ("no examples",)),
        ("a.tsv", "txt\tlabel\nhello\t1\n", ("line 2", "'text'", "did you mean 'txt'", "`text`")),
        ("a.tsv", "text\tlabel\nhello\t1\t2\n", ("line 2", "3 fields", "header has 2")),
        ("a.tsv", "text\nhello\n", ("line 2", "'label'")),
        ("a.csv", 'text,label\n"open,1\n', ("line 2", "CSV")),
        ("a.jsonl", '{"text": "a", "label": 1}\nnot json\n', ("line 2", "not JSON")),
        ("a.jsonl", "[1]\n", ("line 1", "list")),
        ("a.jsonl", '{"text": 5, "label": 1}\n', ("line 1", "text is 5")),
        ("a.jsonl", '{"text": "a", "label": true}\n', ("line 1", "label is True")),
        ("a.jsonl", '{"text": "a", "label": null}\n', ("(line 1)", "`drop_unlabelled`")),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', ("1 of 1", "(line 1)")),
        ("a.csv", "text,label\na,1\nb,\nc,0\nd, nan\n", ("2 of 4", "(line 3, 5)")),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, name: str, content: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_examples(file, Columns(), "refuse")
    assert str(file) in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_file_that_is_missing_or_not_utf_8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(tmp_path / "none.tsv", Columns(), "refuse")
    (tmp_path / "latin.tsv").write_bytes("text\tlabel\ncaf\xe9\t1\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_examples(tmp_path / "latin.tsv", Columns(), "refuse")


MISSING = "text,label\na,1\nb,\nc,0\nd,NaN\ne,1\n"


def test_examples_without_a_label_are_left_out_where_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.csv"
    file.write_text(MISSING, encoding="utf-8")
    found = read_examples(file, Columns(), "drop")
    assert [(one.text, one.label, one.line) for one in found] == [
        ("a", "1", 2),
        ("c", "0", 4),
        ("e", "1", 6),
    ]
    assert "2 of 5 examples have no label (line 3, 5); they are left out" in capsys.readouterr().err
    kept = read_examples(file, Columns(), "keep")
    assert [one.label for one in kept] == ["1", None, "0", None, "1"]


def test_a_label_of_a_word_that_means_nothing_to_others_is_a_label(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\na,none\nb,NA\nc,-1\n", encoding="utf-8")
    assert [one.label for one in read_examples(file, Columns(), "refuse")] == ["none", "NA", "-1"]


def test_a_field_may_be_longer_than_the_readers_usual_bound(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"text,label\n{'word ' * 100_000},1\n", encoding="utf-8")
    assert len(read_examples(file, Columns(), "refuse")[0].text) == 500_000


def test_a_file_of_blank_lines_holds_no_examples(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\n  \n", encoding="utf-8")
    with pytest.raises(DataError, match="no examples"):
        read_examples(file, Columns())
