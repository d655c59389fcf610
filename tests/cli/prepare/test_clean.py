"""`data clean` and `data filters`: what they print, and mistakes as one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_tools.filters.catalog import FILTERS
from electra_dist.cli.main import main
from electra_dist.errors import EXIT_USER_ERROR

TEXTS = [
    "The harbour was quiet that morning and the fishermen were mending their nets by the wall.",
    "The harbour was quiet that morning, and the fishermen were mending their nets by the wall.",
    "A letter came on Tuesday for the captain and nobody at the inn knew who had brought it.",
    "A letter came on Tuesday for the captain and nobody at the inn knew who had brought it.",
    "ok",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def clean(source: Path, out: Path, *words: str) -> int:
    return main(["data", "clean", "--input", str(source), "--out", str(out), *words])


def test_a_table_examples_and_what_is_kept_are_printed(source, tmp_path, capsys) -> None:
    words = ("--filter", "near", "--filter", "exact", "--filter", "length:min_words=5")
    assert clean(source, tmp_path / "out", *words) == 0
    printed = capsys.readouterr().out
    rows = [line.split("│")[1:4] for line in printed.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [["length", "5", "1"], ["exact", "4", "1"], ["near", "3", "1"]]
    assert "length, min_words: ok" in printed
    assert "near, nearly the same text: The harbour was quiet that morning, and" in printed
    assert "    like: The harbour was quiet that morning and" in printed
    assert "kept: 2 documents" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "clean-00000.jsonl.zst",
        "clean-report.json",
        "clean-report.png",
    ]


def test_json_is_the_report_with_the_folder(source, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    words = ("--filter", "exact", "--json", "--no-picture", "--compress", "gz")
    assert clean(source, out, *words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("path") == str(out)
    assert printed.pop("found")["left_out"] == []
    assert printed == json.loads((out / "clean-report.json").read_text())
    assert (printed["documents"], printed["kept_documents"]) == (5, 4)
    assert sorted(path.name for path in out.iterdir()) == [
        "clean-00000.jsonl.gz",
        "clean-report.json",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--filter", "lenght"), "error: --filter lenght: there is no filter 'lenght' (did you"),
        (("--filter", "exact", "--workers", "0"), "error: --workers 0: expected at least 1"),
        (("--filter", "exact", "--compress", "7z"), "error: --compress 7z: expected one of zst"),
        (("--filter", "length"), "error: every one of the 5 documents was dropped: length 5"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(
    words: tuple[str, ...], message: str, source, tmp_path, capsys
) -> None:
    assert clean(source, tmp_path / "out", *words) == EXIT_USER_ERROR
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith(message)
    assert not (tmp_path / "out").exists()


def test_all_filters_are_listed_with_their_parameters(capsys) -> None:
    assert main(["data", "filters", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(FILTERS)
    assert main(["data", "filters"]) == 0
    printed = capsys.readouterr().out
    for one in listed:
        assert f"{one['name']}: {one['drops']}" in printed
        assert all(parameter["name"] in printed for parameter in one["parameters"])
