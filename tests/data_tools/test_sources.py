"""Readers: every document once, however a file is cut, and clear words for what cannot be read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.clean import digest, normalise
from data_tools.sources import Part, find_inputs, read_documents, split_parts
from electra_dist.errors import DataError
from tests.support.english import read_texts


def read_all(path: Path, part_bytes: int) -> list[str]:
    return [
        document for part in split_parts([path], part_bytes) for document in read_documents(part)
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["word", "two words", "é日本", "", "  ", "\t", "x" * 30]), max_size=25
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 60),
)
def test_text_documents_are_those_between_blank_lines_however_the_file_is_cut(
    tmp_path_factory, lines, end, last, cut
):
    path = tmp_path_factory.mktemp("x") / "a.txt"
    path.write_bytes((end.join(lines) + (end if last else "")).encode())
    expected, document = [], []
    for line in [*lines, ""]:
        if line.strip():
            document.append(line)
        elif document:
            expected.append("\n".join(document))
            document = []
    assert read_all(path, cut) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=20), st.integers(1, 80), st.booleans())
def test_json_lines_are_read_once_however_the_file_is_cut(tmp_path_factory, texts, cut, ascii_only):
    folder = tmp_path_factory.mktemp("x")
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    content = "".join(
        json.dumps({"id": 1, "text": text}, ensure_ascii=ascii_only) + "\n" for text in texts
    )
    (folder / "a.jsonl").write_text(content, encoding="utf-8")
    assert read_all(folder / "a.jsonl", cut) == texts
    with gzip.open(folder / "a.jsonl.gz", "wb") as file:
        file.write(content.encode())
    assert sorted(read_all(folder / "a.jsonl.gz", cut)) == sorted(texts)


@pytest.mark.parametrize("part_bytes", [50, 700, 10**6])
def test_real_documents_are_read_once_however_the_file_is_cut(
    samples: Path, part_bytes: int
) -> None:
    text = (samples / "documents.txt").read_text(encoding="utf-8")
    expected = text.rstrip("\n").split("\n\n")
    assert len(expected) == 13
    assert read_all(samples / "documents.txt", part_bytes) == expected
    expected = read_texts(samples / "documents.jsonl")
    assert any("\n\n\n" in document for document in expected)
    assert read_all(samples / "documents.jsonl", part_bytes) == expected


def test_a_folder_stands_for_the_input_files_in_it_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.txt", "a.jsonl", "b/x.jsonl.gz", "readme.md"):
        (tmp_path / name).write_bytes(b"x")
    assert [
        path.relative_to(tmp_path).as_posix()
        for path in find_inputs([tmp_path, tmp_path / "c.txt"])
    ] == [
        "a.jsonl",
        "b/x.jsonl.gz",
        "c.txt",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            b"good line\n\nbad \xff\xfe line\n",
            r"a\.txt, line 3, byte 15: not UTF-8 \(byte 0xff\)",
        ),
        ("a.jsonl", b'{"text": "ok"}\n{"text": \n', r"a\.jsonl, line 2: not valid JSON"),
        (
            "a.jsonl",
            b'{"text": "ok"}\n\n{"txt": "no"}\n',
            r"a\.jsonl, line 3: .* found keys \['txt'\]",
        ),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl, line 1: .* a int there"),
        ("a.jsonl", b'["text"]\n', r"a\.jsonl, line 1: expected a JSON object, found list"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "ok"}\n' * 500)[:-20],
            r"a\.jsonl\.gz: damaged gzip",
        ),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz: damaged gzip"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_documents(Part(tmp_path / name)))


def test_inputs_that_are_none_are_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo.jsonl.gz")
    for given_path, message in [
        ("fifo.jsonl.gz", "is a special file"),
        ("missing.txt", "no such file"),
        ("a.csv", "unknown input format"),
        ("folder", "no input files in this folder"),
        ("empty.txt", "empty input"),
    ]:
        with pytest.raises(DataError, match=message):
            find_inputs([tmp_path / given_path])


def test_a_byte_order_mark_does_not_reach_the_tokenizer_and_the_rest_is_its_own_affair(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\n")
    assert list(read_documents(Part(tmp_path / "a.txt"))) == ["first"]
    text = " a\x00b\r\nc\u2028d\rf e\u0301 \ud800"
    assert normalise(text) == " a\x00b\nc\u2028d\nf e\u0301 \ufffd"


def test_a_document_is_named_by_what_a_reader_sees():
    assert digest(" a\x00b\r\nc\u2028e\u0301\ufeff ") == digest("ab\nc\n\u00e9")
    assert digest("noon\fThe") != digest("noonThe")
