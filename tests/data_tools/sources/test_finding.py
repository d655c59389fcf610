"""What is found behind a name, each file once; and what is left out is told, by suffix."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from data_tools.sources import InputReport, ReadOptions, find_inputs
from electra_dist.errors import DataError
from tests.support.reading import parts_of, read_all


def names(*inputs: str | Path, below: Path, **options: object) -> list[str]:
    """The files that are read, as paths below a folder."""
    found = find_inputs(inputs, ReadOptions(**options))  # type: ignore[arg-type]
    return [Path(file.name).relative_to(below).as_posix() for file in found.files]


def left_out(report: InputReport) -> dict[tuple[str, str], int]:
    return {(row.suffix, row.left_out): row.files for row in report.left_out}


def fill(folder: Path, *files: str) -> Path:
    """Files with a document each: their own name."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_folder_stands_for_the_input_files_in_it_sorted(tmp_path: Path) -> None:
    fill(tmp_path, "c.txt", "a.TXT", "b/x.jsonl.GZ", "b.csv", "readme.md", "B/y.parquet")
    given = (tmp_path, tmp_path / "c.txt")
    assert names(*given, below=tmp_path) == [
        "B/y.parquet",
        "a.TXT",
        "b/x.jsonl.GZ",
        "b.csv",
        "c.txt",
    ]


def test_what_is_read_and_what_is_left_out_is_told_by_suffix(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.txt", "c.txt.gz", "README.md", "d/e.md", "f.tar.gz", "Makefile")
    fill(tmp_path, ".hidden.txt", ".git/config", "d/._a.txt")
    (tmp_path / "empty.jsonl").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    (tmp_path / "self.txt").symlink_to("self.txt")
    (tmp_path / "same.txt").symlink_to("a.txt")
    report = find_inputs([tmp_path]).report
    assert {(row.suffix, row.files, row.bytes) for row in report.read} == {
        (".txt", 2, 10),
        (".txt.gz", 1, 8),
    }
    assert left_out(report) == {
        (".md", "unknown suffix"): 2,
        (".tar.gz", "unknown suffix"): 1,
        ("no suffix", "unknown suffix"): 1,
        (".txt", "hidden"): 2,
        ("no suffix", "hidden"): 1,
        (".jsonl", "empty"): 1,
        (".txt", "special file"): 1,
        (".txt", "broken link"): 2,
        (".txt", "read already"): 1,
    }
    assert report.read_line() == "3 files, 18 bytes (2 .txt, 1 .txt.gz)"
    with pytest.raises(DataError, match=r"`strict`: .*2 \.md \(unknown suffix, for example .*md\)"):
        find_inputs([tmp_path], ReadOptions(strict=True))


def test_strict_takes_what_is_read_whole(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.jsonl")
    (tmp_path / "same.txt").symlink_to("a.txt")
    assert names(tmp_path, below=tmp_path, strict=True) == ["a.txt", "b.jsonl"]


def test_links_are_followed_each_file_is_read_once_and_a_circle_ends(tmp_path: Path) -> None:
    fill(tmp_path, "blobs/0123abcd", "corpus/in/b.txt", "elsewhere/c.txt")
    corpus = tmp_path / "corpus"
    (corpus / "a.txt").symlink_to("../blobs/0123abcd")
    (corpus / "out").symlink_to("../elsewhere")
    (corpus / "in" / "up").symlink_to("..")
    (corpus / "twice").symlink_to("in")
    (tmp_path / "name").symlink_to("corpus")
    expected = ["a.txt", "in/b.txt", "out/c.txt"]
    assert names(corpus, below=corpus) == expected
    assert names(tmp_path / "name", below=tmp_path / "name") == expected
    assert read_all(corpus) == ["blobs/0123abcd", "corpus/in/b.txt", "elsewhere/c.txt"]


def test_globs_name_what_a_shell_would_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.jsonl", "x/c.txt", "x/y/d.txt", "x/y/e.md", ".h.txt", "[1].txt")
    (tmp_path / "x" / "y" / "up").symlink_to("../..")
    for pattern, expected in {
        "*.txt": ["[1].txt", "a.txt"],
        "**/*.txt": ["[1].txt", "a.txt", "x/c.txt", "x/y/d.txt"],
        "x/*": ["x/c.txt", "x/y/d.txt", "x/y/up/[1].txt", "x/y/up/a.txt", "x/y/up/b.jsonl"],
        "?.txt": ["a.txt"],
        ".*.txt": [".h.txt"],
        "[1].txt": ["[1].txt"],  # a file of that very name comes before the pattern
        "*/c.txt": ["x/c.txt"],
    }.items():
        assert sorted(names(f"{tmp_path}/{pattern}", below=tmp_path)) == expected, pattern
    with pytest.raises(DataError, match=r"\*\.csv: no input files match this pattern"):
        find_inputs([f"{tmp_path}/*.csv"])


def test_a_linked_folder_matches_a_glob_under_both_names(tmp_path: Path) -> None:
    fill(tmp_path, "real/a.txt")
    (tmp_path / "alias").symlink_to("real")
    assert names(f"{tmp_path}/real/*.txt", below=tmp_path) == ["real/a.txt"]
    assert names(f"{tmp_path}/*/a.txt", below=tmp_path) == ["alias/a.txt"]


def test_inputs_that_are_none_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.log", "only/readme.md")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo.jsonl.gz")
    for given, message in [
        ("fifo.jsonl.gz", "is a special file"),
        ("missing.txt", "no such file"),
        ("a.log", r"unknown input format.*\.txt, .*`format` names"),
        ("folder", "no input files in this folder"),
        ("only", r"no input files in this folder.*found 1 \.md"),
        ("empty.txt", "empty input"),
        ("x\0y", "cannot be read"),
    ]:
        with pytest.raises(DataError, match=message):
            find_inputs([tmp_path / given])
    with pytest.raises(DataError, match="no input given"):
        find_inputs([])


def test_options_that_are_none_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    with pytest.raises(DataError, match=r"`documents` 'lines': unknown \(did you mean 'line'\?\)"):
        find_inputs([tmp_path], ReadOptions(documents="lines"))  # type: ignore[arg-type]
    for name in ("md", "gz", "x.txt", "jsonl.zip"):
        with pytest.raises(DataError, match=rf"`format` '{name}': unknown"):
            find_inputs([tmp_path], ReadOptions(format=name))


def test_a_folder_that_cannot_be_read_is_an_error_and_no_omission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.txt", "shut/b.txt")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"shut: this folder cannot be read: .*Permission denied"):
        find_inputs([tmp_path])


def test_a_format_can_be_named_for_files_with_another_suffix(tmp_path: Path) -> None:
    fill(tmp_path, "a.log", "b.txt")
    given = [tmp_path / "a.log", tmp_path / "b.txt"]
    assert read_all(*given, format="txt") == ["a.log", "b.txt"]
    assert read_all(tmp_path, format="txt") == ["b.txt"], "a folder is taken by suffixes alone"


def test_a_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_bytes(b"\xff")
    (row,) = find_inputs([tmp_path]).report.read
    assert row.example.endswith("caf\\udce9.txt")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read_all(tmp_path)
    assert str(caught.value).encode()


def test_standard_input_is_read_in_the_format_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = b'{"text": "from a pipe"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_all("-", format="jsonl") == ["from a pipe"]
    with pytest.raises(DataError, match=r"-: standard input has no name.*`format`"):
        find_inputs(["-"])


def test_small_files_are_put_together(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number:04}.txt" for number in range(500)))
    parts = parts_of(tmp_path)
    assert len(parts) == 1
    assert read_all(tmp_path) == [f"{number:04}.txt" for number in range(500)]
    assert len(parts_of(tmp_path, part_bytes=80)) == 50
    assert read_all(tmp_path, part_bytes=80) == read_all(tmp_path)


def test_documents_are_numbered_through_a_part_of_several_files(tmp_path: Path) -> None:
    from data_tools.sources import read_pieces

    fill(tmp_path, "a.txt", "b.txt", "c.txt")
    (part,) = parts_of(tmp_path)
    assert [piece.document for piece in read_pieces(part)] == [0, 1, 2]


def test_what_was_found_is_given_back(tmp_path: Path) -> None:
    found = find_inputs([fill(tmp_path, "a.txt")], ReadOptions(documents="line"))
    assert find_inputs(found) is found


def test_the_identity_of_inputs_changes_with_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.txt", "b.txt")
    first = find_inputs([tmp_path])
    assert find_inputs([tmp_path]).identity() == first.identity()
    assert len(first.identity()) == 3
    os.utime(tmp_path / "b.txt", ns=(0, 0))
    touched = find_inputs([tmp_path])
    assert touched.identity() != first.identity()
    assert touched.identity(versions=False) == first.identity(versions=False)
    for options in (ReadOptions(documents="line"), ReadOptions(text_key="content")):
        assert find_inputs([tmp_path], options).identity() != touched.identity()

    def piped(content: bytes) -> tuple[str, ...]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return find_inputs(["-"], ReadOptions(format="txt")).identity()

    assert piped(b"one") == piped(b"one") != piped(b"two")
