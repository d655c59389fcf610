"""`predict --suspects` and `predict --labels`, as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra_dist.cli import main as cli
from tests.support.pairs import write_pair

TEXTS = "The value of the object.\n\nAnother <b>text</b>.\n"


@pytest.fixture(scope="module")
def pair(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("pair"), tiny_shards.parent / "tokenizer")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS, encoding="utf-8")
    return path


def predict(*words: str | Path) -> int:
    return cli.main(["predict", *map(str, words), "--device", "cpu"])


def test_one_object_per_text_blank_ones_too(
    pair: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--suspects", "--threshold", "0", "--count", "2", "--json")
    assert predict(pair / "discriminator", "--input", texts, *words) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["text"] for one in found] == TEXTS.splitlines()
    assert [len(one["words"]) > 0 for one in found] == [True, False, True]
    for word in found[0]["words"]:
        assert word["suspect"] is True
        assert len(word["suggestions"]) == 2


def test_a_table_for_a_pipe_and_a_page(
    pair: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    model = pair / "discriminator"
    words = ("--input", texts, "--suspects", "--threshold", "0")
    assert predict(model, *words) == 0
    header, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == ["text", "word", "start", "end", "probability", "suggestions"]
    assert [row[1] for row in rows[:5]] == ["The", "value", "of", "the", "object"]
    assert {row[0] for row in rows} == {"1", "3"}

    assert predict(model, *words, "--html", page) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{page}: {len(rows)} of {len(rows)} words are marked" in told.err
    assert "&lt;" in page.read_text(encoding="utf-8")

    out = tmp_path / "out.tsv"
    assert predict(model, *words, "--out", out) == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1 + len(rows)


def test_a_file_can_be_one_text(
    pair: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(pair / "discriminator", "--input", texts, "--suspects", "--whole", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["text"] == TEXTS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threshold", "0.3"), "--threshold: is an option of --suspects"),
        (("--html", "x.html"), "--html: is an option of --suspects"),
        (("--calibrate",), "--calibrate: is an option of --labels"),
        (("--suspects", "--labels", "a,b"), "--labels and --suspects"),
        (("--suspects", "--threshold", "2"), "--threshold 2: expected a probability"),
        (("--labels", "a"), "expected two labels"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    pair: Path, texts: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(pair / "discriminator", "--input", texts, *words) == 2
    assert said in capsys.readouterr().err


def test_a_whole_file_that_is_no_text_is_refused(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(b"\xff\xfe")
    words = ("--suspects", "--whole", "--input")
    assert predict(pair / "discriminator", *words, path) == 2
    assert "is not UTF-8 (byte 0)" in capsys.readouterr().err
    assert predict(pair / "discriminator", *words, tmp_path / "missing") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_labels_are_given_and_scored(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text("text\tlabel\nA joy.\tpos\nA mess.\tneg\nSo so.\t\n", encoding="utf-8")
    words = ("--input", path, "--labels", "pos=great,neg=terrible")
    assert predict(pair / "discriminator", *words) == 0
    told = capsys.readouterr()
    header, *rows = (line.split("\t") for line in told.out.splitlines())
    assert header == ["predicted", "probability", "text"]
    right = sum(row[0] == label for row, label in zip(rows, ("pos", "neg", ""), strict=True))
    assert f"accuracy {right / 2:.4f}" in told.err

    assert predict(pair / "discriminator", *words, "--json", "--calibrate") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["text"] for one in found] == ["A joy.", "A mess.", "So so."]
    assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in found)

    assert predict(pair / "discriminator", "--input", path, "--labels", "a,b") == 2
    assert "line 2: label 'pos' is none of --labels: a, b" in capsys.readouterr().err
