"""What a file of pairs holds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.embeddings.pairs import read_pairs

COLUMNS = Columns(pair="pair")


def lines_of(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_each_text_has_one_number(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("text\tpair\na\tb\na\tc\nd\tb\n", encoding="utf-8")
    pairs = read_pairs(file, COLUMNS)
    assert pairs.kind == "pairs"
    assert pairs.labels is None
    assert pairs.texts == ("a", "b", "c", "d")
    assert pairs.queries.tolist() == [0, 0, 3]
    assert pairs.positives.tolist() == [1, 2, 1]
    assert pairs.known_positives == {0: {1, 2}, 3: {1}}


def test_negatives_are_a_text_or_a_list_and_may_lack(tmp_path: Path) -> None:
    pairs = read_pairs(
        lines_of(
            tmp_path / "a.jsonl",
            {"text": "a", "pair": "b", "negative": "c"},
            {"text": "a", "pair": "b", "negative": ["d", "c"]},
            {"text": "a", "pair": "b"},
        ),
        COLUMNS,
    )
    assert pairs.kind == "triples"
    assert [[pairs.texts[n] for n in row] for row in pairs.negatives] == [["c"], ["d", "c"], []]


def test_scores_are_numbers_in_columns_of_any_name(tmp_path: Path) -> None:
    file = tmp_path / "sts.csv"
    file.write_text('one,two,score\n"a, b",c,4.5\nd,e,0\n', encoding="utf-8")
    pairs = read_pairs(file, Columns("one", "two", "score"))
    assert pairs.kind == "scored pairs"
    assert pairs.main_score == "spearman"
    assert pairs.labels is not None
    assert pairs.labels.tolist() == [4.5, 0.0]
    assert "from 0 to 4.5" in pairs.summary()


def test_pairs_without_a_label_among_others_are_left_out_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lines_of(
        tmp_path / "a.jsonl",
        {"text": "a", "pair": "b", "label": 1},
        {"text": "c", "pair": "d", "label": None},
    )
    with pytest.raises(DataError, match=r"1 of 2 pairs have no label \(line 2\)"):
        read_pairs(file, COLUMNS)
    assert read_pairs(file, COLUMNS, "drop").texts == ("a", "b")
    assert "left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "a"}, "line 1: has no 'pair'"),
        ({"pair": "a"}, "line 1: has no 'text'"),
        ({"text": 3, "pair": "a"}, "text is 3; expected a text"),
        ({"text": "a", "pair": "b", "label": "good"}, "label 'good'; expected a finite number"),
        ({"text": "a", "pair": "b", "label": "inf"}, "label 'inf'; expected a finite number"),
        ({"text": "a", "pair": "b", "negative": 3}, "negative is 3"),
        ({"text": "a", "pair": "b", "negative": "c", "label": 1}, "has a negative and a label"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    file = lines_of(tmp_path / "a.jsonl", row)
    with pytest.raises(DataError) as error:
        read_pairs(file, COLUMNS)
    assert words in str(error.value)
    assert str(file) in str(error.value)


def test_plain_text_and_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(DataError, match="plain text has no pairs"):
        read_pairs(tmp_path / "a.txt", COLUMNS)
    (tmp_path / "a.tsv").write_text("text\tpair\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no pairs"):
        read_pairs(tmp_path / "a.tsv", COLUMNS)
