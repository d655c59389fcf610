"""Plain text: every document once, however the file is cut, and pieces that depend on nothing but
the document.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.sources import decoding, text
from electra_dist.errors import DataError
from tests.support.english import read_texts
from tests.support.reading import pieces_of, read_all

WORDS = ["word", "two words", "é日本", "x" * 30, "🦊", " indented", "trailing "]
SPACES = ["", "  ", "\t", "\u3000", "\u00a0", "\x0c", "\x0b", "\x1c", "\x85", "\u2028", " \u2003 "]
ENDS = ["\n", "\r\n", "\r"]
MODES = ["blank-line", "line", "file"]


def documents_of(content: str, documents: str) -> list[str]:
    """The reference: the whole text at once, line by line."""
    plain = content.replace("\r\n", "\n").replace("\r", "\n")
    lines = plain.split("\n")
    if documents == "file":
        return [plain] * bool(plain.strip())
    if documents == "line":
        return [line for line in lines if line.strip()]
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["\n".join(document) for document in found if document]


texts = st.lists(
    st.tuples(st.sampled_from(WORDS + SPACES), st.sampled_from([*ENDS, ""])), max_size=25
).map(lambda lines: "".join(line + end for line, end in lines))


@settings(max_examples=150, deadline=None)
@given(texts, st.sampled_from(MODES), st.integers(1, 60), st.sampled_from([1, 2, 3, 7, 2**20]))
def test_every_document_is_read_once_however_the_file_is_cut(
    tmp_path_factory, content, documents, part_bytes, block_bytes
):
    path = tmp_path_factory.mktemp("x") / "a.txt"
    path.write_bytes(content.encode() + b"\nend\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "BLOCK_BYTES", block_bytes)
        patch.setattr(text, "BLOCK_BYTES", block_bytes)
        found = read_all(path, part_bytes=part_bytes, documents=documents)
    assert found == documents_of(content + "\nend\n", documents)


@settings(max_examples=150, deadline=None)
@given(
    texts,
    st.sampled_from(MODES),
    st.integers(1, 60),
    st.sampled_from([1, 5, 64]),
    st.sampled_from([4, 25]),
)
def test_pieces_join_to_the_document_and_do_not_depend_on_the_cutting(
    tmp_path_factory, content, documents, part_bytes, block_bytes, most
):
    path = tmp_path_factory.mktemp("x") / "a.txt"
    path.write_bytes(content.encode() + b"\nend\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE_CHARACTERS", most)
        whole = pieces_of(path, documents=documents)
        patch.setattr(decoding, "BLOCK_BYTES", block_bytes)
        patch.setattr(text, "BLOCK_BYTES", block_bytes)
        cut = pieces_of(path, part_bytes=part_bytes, documents=documents)
    described = [(piece.text, piece.number, piece.last) for piece in whole]
    assert [(piece.text, piece.number, piece.last) for piece in cut] == described
    joined: dict[int, str] = {}
    for piece in whole:
        assert 0 < len(piece.text) <= most
        assert piece.number == 0 or piece.document in joined
        joined[piece.document] = joined.get(piece.document, "") + piece.text
    assert list(joined) == list(range(len(joined)))
    assert list(joined.values()) == documents_of(content + "\nend\n", documents)
    assert sum(piece.last for piece in whole) == len(joined)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=20), st.integers(1, 80), st.booleans())
def test_json_lines_are_read_once_however_the_file_is_cut(tmp_path_factory, found, cut, ascii_only):
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    found = [one.encode("utf-8", "ignore").decode() for one in found]
    lines = [json.dumps({"id": 1, "text": one}, ensure_ascii=ascii_only) for one in found]
    path.write_text("\n".join([*lines, ""]) + "\n", encoding="utf-8")
    assert read_all(path, part_bytes=cut) == found


@pytest.mark.parametrize("part_bytes", [50, 700, 10**6])
def test_real_documents_are_read_once_however_the_file_is_cut(
    samples: Path, part_bytes: int
) -> None:
    content = (samples / "documents.txt").read_text(encoding="utf-8")
    expected = content.rstrip("\n").split("\n\n")
    assert len(expected) == 13
    assert read_all(samples / "documents.txt", part_bytes=part_bytes) == expected
    expected = read_texts(samples / "documents.jsonl")
    assert any("\n\n\n" in document for document in expected)
    assert read_all(samples / "documents.jsonl", part_bytes=part_bytes) == expected


def test_a_blank_line_is_one_of_unicode_white_space(samples: Path) -> None:
    found = read_all(samples / "blank-lines.txt")
    assert [document.split("\n")[0] for document in found] == [
        "The boat left at dawn.",
        "昼には雨が降った。",
        "By night the harbour was empty.",
        "The keeper wrote it down.",
    ]


def test_a_line_may_be_a_document(samples: Path) -> None:
    assert len(read_all(samples / "lines.txt")) == 1
    found = read_all(samples / "lines.txt", documents="line")
    assert len(found) == 8
    assert found[1] == "The miller sleeps by the wheel."


def test_a_file_may_be_a_document(samples: Path) -> None:
    found = read_all(samples / "documents.txt", documents="file")
    assert found == [(samples / "documents.txt").read_text(encoding="utf-8")]


def test_form_feeds_and_the_like_stay_in_the_document(samples: Path) -> None:
    (found,) = read_all(samples / "pages.txt")
    assert found.split()[3:6] == ["ends", "here", "and"]
    assert found.split()[9:16] == ["on.", "A", "tab", "and", "a", "line", "make"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl", "a.csv", "a.json"):
        content = {"a.txt": "first\n", "a.jsonl": '{"text": "first"}\n', "a.csv": "text\nfirst\n"}
        plain = content.get(name, '["first"]')
        (tmp_path / name).write_text(plain, encoding="utf-8-sig")
        assert read_all(tmp_path / name) == ["first"], name


def test_a_piece_ends_after_white_space_else_between_words_else_between_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text, "PIECE_CHARACTERS", 10)
    found = [piece for piece, _ in text.cut_document("one two three four")]
    assert found == ["one two ", "three four"]
    found = [piece for piece, _ in text.cut_document("昼には雨。夜には風が吹いて")]
    assert found == ["昼には雨。", "夜には風が吹いて"]
    found = [piece for piece, _ in text.cut_document("a" * 9 + "e\u0301" + "b" * 5)]
    assert found == ["a" * 9, "e\u0301" + "b" * 5]


def test_a_huge_line_is_read_in_little_memory(tmp_path: Path) -> None:
    """In a process of its own: what it took at most, above what it had before."""
    path = tmp_path / "a.txt"
    path.write_text("word " * 12_000_000, encoding="utf-8")  # 60 MB in one line
    code = f"""
import resource
from data_tools.sources import find_inputs, read_pieces, split_parts
parts = split_parts(find_inputs([{str(path)!r}]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pieces = [(len(piece.text), piece.last) for part in parts for piece in read_pieces(part)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
assert sum(length for length, _ in pieces) == 60_000_000
assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout)  # as Linux counts them
    assert kilobytes < 40_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            b"good line\n\nbad \xff\xfe line\n",
            r"a\.txt, line 3, byte 15: not UTF-8 \(byte 0xff\)",
        ),
        ("a.txt", b"good\rbad \xff\xfe line\n", r"a\.txt, line 2, byte 9: not UTF-8"),
        ("a.txt", b"cut off \xe6\x97", r"a\.txt, line 1, byte 8: not UTF-8 \(byte 0xe6\)"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": \n', r"a\.jsonl, line 2: not valid JSON"),
        (
            "a.jsonl",
            b'{"text": "ok"}\n\n{"txt": "no"}\n',
            r"a\.jsonl, line 3: .* found keys \['txt'\]; .*`text_key`",
        ),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl, line 1: .* a int there"),
        ("a.jsonl", b'["text"]\n', r"a\.jsonl, line 1: expected a JSON object or a string, .*list"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"a\.jsonl, line 1, byte 10: not UTF-8"),
    ],
)
@pytest.mark.parametrize("part_bytes", [None, 7])
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, message, part_bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_all(tmp_path / name, part_bytes=part_bytes)


def test_a_line_of_json_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.sources import records

    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ok"}\n{"text": "' + 100 * "x" + '"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: longer than 100 bytes"):
        read_all(path)


def test_a_document_that_is_too_long_to_be_held_is_refused_whole_and_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_tools.sources import reading

    monkeypatch.setattr(text, "PIECE_CHARACTERS", 10)
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", 50)
    path = tmp_path / "a.txt"
    path.write_text("word " * 20)
    with pytest.raises(DataError, match=r"a\.txt: a document of more than 50 characters"):
        read_all(path)
    assert "".join(piece.text for piece in pieces_of(path)) == "word " * 20
