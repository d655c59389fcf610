"""A look at some documents warns where they look wrong, and reads little."""

from __future__ import annotations

from pathlib import Path

from data_tools.sources import ReadOptions, find_inputs, look_at


def test_one_document_in_all_is_warned_about(samples: Path) -> None:
    look = look_at(find_inputs([samples / "lines.txt"]))
    assert look.documents == 1
    assert look.whole
    assert "the whole input is one document" in look.warning
    assert "`documents` line" in look.warning
    look = look_at(find_inputs([samples / "lines.txt"], ReadOptions(documents="line")))
    assert (look.documents, look.warning) == (8, "")


def test_documents_of_usual_length_are_not(samples: Path) -> None:
    look = look_at(find_inputs([samples / "documents.txt", samples / "documents.jsonl"]))
    assert (look.documents, look.whole, look.warning) == (41, True, "")


def test_very_long_documents_are_warned_about(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("word word\n" * 120_000)
    look = look_at(find_inputs([tmp_path]))
    assert look.median_characters == 1_199_999
    assert "half of the documents have more than 1,000,000 characters" in look.warning


def test_a_long_input_is_looked_at_in_part(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(("word " * 20 + "\n\n") * 300_000)
    look = look_at(find_inputs([tmp_path]))
    assert not look.whole
    assert 10_000 < look.documents < 300_000
    assert look.median_characters == 100


def test_utf16_that_passes_for_utf8_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Plain words.\n\nMore words.\n".encode("utf-16-le"))
    assert "iconv -f utf-16le" in look_at(find_inputs([tmp_path])).warning
