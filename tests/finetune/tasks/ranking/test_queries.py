"""Queries of JSON lines: what is read, what is refused, and that it is read again when needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.ranking.queries import read_queries

COLUMNS = Columns("query", "candidates", "relevant")
GOOD = {"query": "grün?", "candidates": ["a", "b", "c"], "relevant": [0, 2, 1]}


def written(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_queries_are_those_of_the_lines_in_any_order_of_asking(tmp_path: Path) -> None:
    rows = [GOOD | {"query": f"grün {number}", "id": f"q{number}"} for number in range(5)]
    path = written(tmp_path / "q.jsonl", rows[0], "", *rows[1:])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    queries = read_queries(path, COLUMNS, "refuse")
    assert list(queries.counts) == [3] * 5
    for number in (4, 0, 2):
        assert queries[number].text == f"grün {number}"
        assert queries[number].grades == (0, 2, 1)
    assert [query.name for query in queries] == ["q0", "q1", "q2", "q3", "q4"]
    assert [query.text for query in queries[1:3]] == ["grün 1", "grün 2"]
    assert queries[-1].text == "grün 4"


def test_other_names_of_the_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "q.jsonl", {"q": "a", "docs": ["b"], "grade": [1]})
    (query,) = read_queries(path, Columns("q", "docs", "grade"))
    assert query.candidates == ("b",)
    with pytest.raises(DataError, match="'query' is None"):
        read_queries(path, COLUMNS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": 3}, "'query' is 3; expected a text"),
        ({"candidates": "a"}, "'candidates' is 'a'; expected a list"),
        ({"candidates": []}, "'candidates' is .*; expected a list"),
        ({"candidates": ["a", 1, "c"]}, "number 1 of 'candidates' is 1; expected a text"),
        ({"relevant": [0, 1]}, "'relevant' is .*; expected a list of 3 whole numbers"),
        ({"relevant": 1}, "'relevant' is 1; expected a list of 3 whole numbers"),
        ({"relevant": [0, 1, True]}, "'relevant' holds True; expected whole numbers"),
        ({"relevant": [0, 1, -1]}, "'relevant' holds -1; expected whole numbers"),
        ({"relevant": [0, 1, 31]}, "'relevant' holds 31; expected whole numbers"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = written(tmp_path / "q.jsonl", GOOD, GOOD | change)
    with pytest.raises(DataError, match=f"q.jsonl, line 2: {words}"):
        read_queries(path, COLUMNS)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: is not JSON"):
        read_queries(written(tmp_path / "a.jsonl", "{"), COLUMNS)
    with pytest.raises(DataError, match="line 1: is list"):
        read_queries(written(tmp_path / "b.jsonl", "[]"), COLUMNS)
    with pytest.raises(DataError, match="holds no queries"):
        read_queries(written(tmp_path / "c.jsonl", ""), COLUMNS)
    with pytest.raises(DataError, match=r"unknown format; expected .* \.jsonl"):
        read_queries(written(tmp_path / "d.csv", GOOD), COLUMNS)
    (tmp_path / "e.jsonl").write_bytes(b'{"query": "\xff"}\n')
    with pytest.raises(DataError, match=r"line 1: is not UTF-8 \(byte 11"):
        read_queries(tmp_path / "e.jsonl", COLUMNS)
    bare = {name: GOOD[name] for name in ("query", "candidates")}
    with pytest.raises(DataError, match=r"2 of 3 examples have no label \(line 1, 3\)"):
        read_queries(written(tmp_path / "f.jsonl", bare, GOOD, bare), COLUMNS, "refuse")
