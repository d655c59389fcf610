"""MIND's format: the sample, and lines that are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.ranking.queries import Query, read_queries
from tests.support.mind import write_behaviors

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "mind"
COLUMNS = Columns("query", "candidates", "relevant")
NEWS = (
    "N1\tsport\tgolf\tA long drive\tabstract\turl\t[]\t[]\n"
    "N2\tsport\tgolf\tThe last hole\t\t\t\t\n"
    "N3\tnews\tweather\tRain, again\t\t\t\t\n"
)


def written(folder: Path, *lines: str, news: str = NEWS) -> Path:
    (folder / "news.tsv").write_text(news, encoding="utf-8")
    (folder / "behaviors.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def line(history: str, impressions: str) -> str:
    return f"7\tU1\t11/13/2019 8:36:57 AM\t{history}\t{impressions}"


def test_a_line_is_a_query_of_titles_the_newest_first(tmp_path: Path) -> None:
    (query,) = read_queries(written(tmp_path, line("N1 N3", "N2-1 N3-0")), COLUMNS)
    assert query == Query(
        "7", "Rain, again; A long drive", ("The last hole", "Rain, again"), (1, 0)
    )


def test_a_reader_without_a_history_has_an_empty_query(tmp_path: Path) -> None:
    (query,) = read_queries(written(tmp_path, line("", "N2-1 N3-0")), COLUMNS)
    assert query.text == ""


def test_impressions_without_labels(tmp_path: Path) -> None:
    folder = written(tmp_path, line("N1", "N2 N3"), line("N1", "N2-1 N3-0"))
    assert [query.grades for query in read_queries(folder, COLUMNS)] == [None, (1, 0)]
    with pytest.raises(DataError, match=r"behaviors.tsv: 1 of 2 examples have no label \(line 1\)"):
        read_queries(folder, COLUMNS, "refuse")
    assert [query.grades for query in read_queries(folder, COLUMNS, "drop")] == [(1, 0)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (line("N1 N9", "N2-1"), "news 'N9' is not in .*news.tsv"),
        (line("N1", "N9-1"), "news 'N9' is not in .*news.tsv"),
        (line("N1", "N2-1 N3"), "1 of 2 impressions have no label"),
        (line("N1", "N2-2"), "impression 'N2-2'; expected"),
        (line("N1", "-1"), "impression '-1'; expected"),
        (line("N1", " "), "has no impressions"),
        ("7\tU1\tN1\tN2-1", "4 fields; expected 5"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, wrong: str, words: str) -> None:
    folder = written(tmp_path, line("N1", "N2-1 N3-0"), wrong)
    with pytest.raises(DataError, match=f"behaviors.tsv, line 2: {words}"):
        read_queries(folder, COLUMNS)


def test_news_that_are_wrong_are_named(tmp_path: Path) -> None:
    good = line("N1", "N2-1")
    for news, words in (
        (NEWS + "N4\tsport\n", "news.tsv, line 4: 2 fields; expected 4"),
        (NEWS + "N1\ta\tb\tanother\n", "news.tsv, line 4: news 'N1' has another title"),
    ):
        with pytest.raises(DataError, match=words):
            read_queries(written(tmp_path, good, news=news), COLUMNS)
    (tmp_path / "news.tsv").unlink()
    with pytest.raises(DataError, match=r"news.tsv: cannot be read: .*in one folder"):
        read_queries(tmp_path, COLUMNS)


def test_the_sample_is_what_its_generator_writes(tmp_path: Path) -> None:
    shutil.copy(SAMPLE / "news.tsv", tmp_path)
    again = write_behaviors(tmp_path, impressions=48, seed=1)
    assert again.read_bytes() == (SAMPLE / "behaviors.tsv").read_bytes()
    queries = read_queries(SAMPLE, COLUMNS, "refuse")
    assert len(queries) == 48
    assert all(query.can_be_ordered for query in queries)
    assert any(query.text == "" for query in queries)
