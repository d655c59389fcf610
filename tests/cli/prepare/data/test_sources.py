"""The input options of the data commands: what is left out is told, and errors name options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from electra_dist.cli.main import main


def sources(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of `data sources --input`."""
    status = main(["data", "sources", "--input", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_what_is_read_and_left_out_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.md").write_text("x")
    status, out, err = sources(capsys, tmp_path)
    assert status == 0
    assert "1 file, 9 bytes (1 .txt)" in out
    assert "1 .md (unknown suffix" in out
    assert "warning: left out of the input: 1 .md (unknown suffix" in err

    status, out, _ = sources(capsys, tmp_path, "--json")
    facts = json.loads(out)
    assert facts["documents"] == 2
    assert [(row["suffix"], row["files"]) for row in facts["inputs"]["read"]] == [(".txt", 1)]
    assert [row["left_out"] for row in facts["inputs"]["left_out"]] == ["unknown suffix"]

    status, _, err = sources(capsys, tmp_path, "--strict")
    assert status == 2
    assert err.startswith("error: --strict: these inputs would be left out: 1 .md")


def test_a_corpus_of_one_document_is_warned_about(
    samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = sources(capsys, samples / "lines.txt")
    assert status == 0
    assert "warning: the whole input is one document; is that meant? --documents line" in err
    _, out, err = sources(capsys, samples / "lines.txt", "--documents", "line")
    assert "documents:              8" in out
    assert not err


def test_an_error_names_the_option(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = sources(capsys, samples / "documents.jsonl", "--text-key", "content")
    assert status == 2
    assert "name the right one as --text-key" in err


def test_standard_input_is_read_and_its_copy_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "electra_dist.cli", "data", "sources", "--json"]
    for content, status in ((b'{"text": "from a pipe"}\n', 0), (b"{\n", 2)):
        done = subprocess.run(
            [*command, "--input", "-", "--format", "jsonl"],
            input=content,
            capture_output=True,
            env={"PATH": "/usr/bin", "TMPDIR": str(tmp_path)},
        )
        assert done.returncode == status, done.stderr
        assert not list(tmp_path.iterdir())
    assert done.stderr.startswith(b"error: standard input, line 1: not valid JSON")


def test_tokenizer_and_build_take_the_same_options_and_tell_the_same(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pydoc_topics: Path
) -> None:
    """A table of which one column is read, by several workers."""
    import pyarrow
    import pyarrow.parquet

    lines = (samples / "lines.txt").read_text(encoding="utf-8").splitlines()
    topics = [json.loads(line)["text"] for line in pydoc_topics.read_text().splitlines()]
    data = tmp_path / "data"
    data.mkdir()
    table = pyarrow.table({"page": [{"body": text} for text in lines + topics]})
    pyarrow.parquet.write_table(table, data / "a.parquet")
    (data / "notes.md").write_text("x")
    words = ["--input", str(data), "--text-key", "page.body", "--json"]
    tokenizer = str(tmp_path / "tokenizer")
    learn = ["data", "tokenizer", *words, "--vocab-size", "512", "--out", tokenizer]
    out = str(tmp_path / "shards")
    build = ["data", "build", *words, "--tokenizer", tokenizer, "--out", out, "--workers", "2"]
    for command in (learn, build):
        assert main([*command, "--strict"]) == 2
        assert "--strict: these inputs would be left out: 1 .md" in capsys.readouterr().err
        assert main(command) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["inputs"]["read"][0]["files"] == 1
        assert facts["inputs"]["left_out"][0]["suffix"] == ".md"
    assert facts["documents"] == len(lines) + len(topics)
