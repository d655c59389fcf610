"""Rows of texts with their candidates, against the tokenizer called for each pair alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from electra_dist.finetune.tasks.candidates.encoding import (
    CandidateRows,
    encode_list,
    encode_pairs,
    warn_of_cuts,
)


@dataclass(frozen=True)
class Lists:
    text: str
    candidates: tuple[str, ...]


SHORT = Lists("Which value is it?", ("the value", "of the object", "none"))
LONG_TEXT = Lists("the value of the object is long " * 20, ("the value", "of the object"))
LONG_CANDIDATE = Lists("Which value?", ("the object " * 40, "none"))
LISTS = (SHORT, LONG_TEXT, LONG_CANDIDATE)


@pytest.fixture(scope="module")
def tokenizer(encoder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(encoder)


def parts(tokenizer: Any, row: dict[str, list[int]]) -> tuple[list[int], list[int]]:
    """The ids of the text and of the candidate, without special tokens."""
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    pairs = list(zip(row["input_ids"], row["token_type_ids"], strict=True))
    first = [token for token, kind in pairs if kind == 0 and token not in special]
    second = [token for token, kind in pairs if kind == 1 and token not in special]
    return first, second


def test_what_is_short_is_the_pair_of_the_tokenizer(tokenizer: Any) -> None:
    rows = encode_pairs(tokenizer, [SHORT.text] * 3, SHORT.candidates, 64)
    assert rows == [dict(tokenizer(SHORT.text, one)) for one in SHORT.candidates]


def test_a_long_text_loses_its_end_and_the_candidate_stays_whole(tokenizer: Any) -> None:
    (row, _) = encode_pairs(tokenizer, [LONG_TEXT.text] * 2, LONG_TEXT.candidates, 32)
    assert len(row["input_ids"]) == 32
    (text, candidate) = parts(tokenizer, row)
    assert candidate == tokenizer(LONG_TEXT.candidates[0], add_special_tokens=False)["input_ids"]
    whole = tokenizer(LONG_TEXT.text, add_special_tokens=False)["input_ids"]
    assert text == whole[: len(text)]
    assert row == dict(
        tokenizer(LONG_TEXT.text, LONG_TEXT.candidates[0], truncation="only_first", max_length=32)
    )


def test_a_short_text_survives_a_long_candidate(tokenizer: Any) -> None:
    (row, _) = encode_pairs(tokenizer, [LONG_CANDIDATE.text] * 2, LONG_CANDIDATE.candidates, 32)
    assert len(row["input_ids"]) == 32
    (text, candidate) = parts(tokenizer, row)
    assert text == tokenizer(LONG_CANDIDATE.text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(LONG_CANDIDATE.candidates[0], add_special_tokens=False)["input_ids"]
    assert candidate == whole[: len(candidate)]


def test_rows_are_those_of_the_lists_one_by_one_and_in_slices(tokenizer: Any) -> None:
    rows = CandidateRows(LISTS, [len(one.candidates) for one in LISTS], tokenizer, 32)
    expected = [
        {name: values[place] for name, values in encoded.items()}
        for one in LISTS
        for encoded in [encode_list(tokenizer, one, 32)]
        for place in range(len(one.candidates))
    ]
    assert len(rows) == 7
    assert [rows[index] for index in range(7)] == expected
    for start in range(7):
        for stop in range(start, 9):
            assert rows[start:stop] == expected[start:stop]
    by_list = rows.by_list([(np.array([float(index)]),) for index in range(7)])
    assert [scores.tolist() for (scores,) in by_list] == [[0, 1, 2], [3, 4], [5, 6]]
    assert CandidateRows([], [], tokenizer, 32).by_list([]) == []


def test_what_is_cut_is_said(tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_cuts(LISTS, "a file", tokenizer, 32)
    assert "a file: 3 of the first 7 candidates" in capsys.readouterr().err
    warn_of_cuts([SHORT], "a file", tokenizer, 32)
    assert not capsys.readouterr().err
