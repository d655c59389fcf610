"""`data tokenizer` and `data build` from the command line: kinds, options, and what is said of a
tokenizer that does not fit the text.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_tools.tokenizer import load_tokenizer
from electra_dist.cli import main as cli


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of one command."""
    status = cli.main([*words])
    out, err = capsys.readouterr()
    return status, out, err


def test_options_reach_the_tokenizer(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tok"
    words = ["data", "tokenizer", "--input", str(samples / "code.txt"), "--out", str(out)]
    options = ["--kind", "unigram", "--normalize", "nfkc", "--keep-whitespace", "--lowercase"]
    status, printed, _ = run(capsys, *words, *options, "--vocab-size", "370", "--json")
    assert status == 0
    assert json.loads(printed)["kind"] == "unigram"
    tokenizer = load_tokenizer(out)
    (ids,) = tokenizer.encode_batch(["A²\n\tb  C"])
    assert tokenizer.decode(ids) == "a2\n\tb  c"


def test_a_tokenizer_that_does_not_fit_the_text_is_warned_of(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "tokenizer", "--input", str(samples / "documents.txt")]
    assert run(capsys, *words, "--vocab-size", "400", "--out", str(tmp_path / "tok"))[0] == 0
    build = ["data", "build", "--tokenizer", str(tmp_path / "tok")]
    chinese = ["--input", str(samples / "chinese.txt"), "--out", str(tmp_path / "chinese")]
    status, printed, said = run(capsys, *build, *chinese, "--json")
    assert status == 0
    assert json.loads(printed)["byte_share"] > 0.9
    assert "of the tokens are single bytes" in said
    english = ["--input", str(samples / "documents.txt"), "--out", str(tmp_path / "english")]
    status, printed, said = run(capsys, *build, *english)
    assert status == 0
    assert "byte share:" in printed
    assert "single bytes" not in said


def test_a_size_that_is_too_small_is_said_as_an_option(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "tokenizer", "--input", str(samples / "documents.jsonl")]
    status, _, said = run(capsys, *words, "--vocab-size", "400", "--out", str(tmp_path / "tok"))
    assert status == 2
    assert "--vocab-size 400: too small for this text; its alphabet has" in said
    assert list(tmp_path.iterdir()) == []
