"""The built-in corpus: real English, no doubles, in the same order every time, within its cap."""

from __future__ import annotations

import json

import pytest

from data_tools.corpus import is_prose, write_pydoc_corpus
from electra_dist.errors import DataError

PROSE = (
    "Return the number of items in the container. When the container is empty, the result is zero,"
    " and no error is raised; this is what most of the callers of this function expect from it,"
    " and they should not have to check."
)
CODE = "\n".join(
    f">>> x{number} = f({number}, [{number}], {{'k': {number}}}); assert x{number} != 0"
    for number in range(12)
)


def test_prose_is_told_from_code_tables_and_fragments():
    assert is_prose(PROSE)
    assert not is_prose(CODE)
    assert not is_prose("+----+----+\n| a1 | b2 |\n" * 20)
    assert not is_prose("Return the value.")
    assert not is_prose(", ".join(["alpha beta gamma delta epsilon zeta eta theta"] * 8))


def test_the_corpus_is_capped_repeatable_and_without_doubles(tmp_path):
    first = write_pydoc_corpus(tmp_path / "a", max_bytes=700_000, workers=2)
    assert first.capped
    assert 650_000 < first.bytes <= 700_000
    assert first.path.stat().st_size == first.bytes
    lines = [json.loads(line) for line in first.path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == first.documents == len({line["text"] for line in lines})
    assert len({line["id"] for line in lines}) > 0.95 * len(lines)
    assert lines[0]["id"] == "topic:assert"
    assert any(not line["id"].startswith("topic:") for line in lines)
    second = write_pydoc_corpus(tmp_path / "b", max_bytes=700_000, workers=1)
    assert second.path.read_bytes() == first.path.read_bytes()
    # may be written again
    assert write_pydoc_corpus(tmp_path / "a", max_bytes=1000, workers=1).bytes <= 1000


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match="holds something else already"):
        write_pydoc_corpus(tmp_path)
