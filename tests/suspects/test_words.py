"""Words and their tokens, against tokenizers whose pieces are known."""

from __future__ import annotations

import itertools

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_dist.suspects.words import words_of


def pieces(text: str, *lengths: int) -> list[tuple[int, int]]:
    """Offsets of tokens that follow one another."""
    offsets = []
    start = 0
    for length in lengths:
        offsets.append((start, start + length))
        start += length
    assert start == len(text)
    return offsets


def texts(text: str, offsets: list[tuple[int, int]]) -> list[str]:
    return [text[word.start : word.end] for word in words_of(text, offsets)]


def by_characters(text: str) -> list[tuple[int, int]]:
    return [(place, place + 1) for place in range(len(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The chef, then.", ["The", "chef", ",", "then", "."]),
        ("don't say it’s", ["don't", "say", "it’s"]),
        ("x='abc', y", ["x", "=", "'", "abc", "'", ",", "y"]),
        ("tmp_file2 = 1", ["tmp_file2", "=", "1"]),
        ("well-known", ["well", "-", "known"]),
        ("日本a b", ["日", "本", "a", "b"]),
        ("हिन्दी है", ["हिन्दी", "है"]),
        (" \n\t", []),
        ("", []),
    ],
)
def test_a_text_has_these_words(text: str, expected: list[str]) -> None:
    assert texts(text, by_characters(text)) == expected


def test_a_word_has_the_tokens_that_cover_it() -> None:
    text = "the functoin ends"
    words = words_of(text, pieces(text, 3, 5, 2, 2, 5))
    assert [list(word.tokens) for word in words] == [[0], [1, 2, 3], [4]]


def test_what_one_token_covers_is_one_word() -> None:
    assert texts("日本語 x", pieces("日本語 x", 2, 1, 2)) == ["日本", "語", "x"]
    assert texts("f(x)", pieces("f(x)", 2, 2)) == ["f(", "x)"]
    assert texts("ab", [(0, 1), (0, 2)]) == ["ab"]


def test_what_has_no_token_is_no_word() -> None:
    assert texts("one two", [(4, 7)]) == ["two"]


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ab é日本'’_1.,() \n", max_size=40), st.data())
def test_every_token_belongs_to_one_word_or_to_white_space(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(0, len(text))))
    edges = sorted({0, len(text)} | cuts)
    offsets = list(itertools.pairwise(edges))
    words = words_of(text, offsets)
    owned = [token for word in words for token in word.tokens]
    assert owned == [place for place, (s, e) in enumerate(offsets) if text[s:e].strip()]
    assert all(one.end <= other.start for one, other in itertools.pairwise(words))
    shown = "".join(text[word.start : word.end] for word in words)
    assert "".join(shown.split()) == "".join(text.split())


def test_offsets_of_a_word_piece_tokenizer_are_understood() -> None:
    vocabulary = {"[UNK]": 0, "un": 1, "##known": 2, "word": 3, ",": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    text = "word, unknown zzz"
    words = words_of(text, tokenizer.encode(text).offsets)
    assert [list(word.tokens) for word in words] == [[0], [1], [2, 3], [4]]
