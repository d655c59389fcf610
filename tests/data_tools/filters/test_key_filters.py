"""Duplicates: exact ones against the texts themselves, near ones against brute-force Jaccard."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.filters import exact as exact_module
from data_tools.filters.document import Document
from data_tools.filters.exact import Exact
from data_tools.filters.near import Near, shingles

WORDS = [f"w{number}" for number in range(3000)]


def test_exact_keys_are_equal_for_texts_that_differ_in_white_space_alone() -> None:
    def key(text: str, **parameters: bool) -> bytes:
        return Exact(**parameters).keys(Document(text)).tobytes()

    assert key("one two\nthree ") == key("one  two three")
    assert key("one two") != key("one two three")
    assert key("one two") != key("onetwo")
    assert key("one two", white_space=True) != key("one  two", white_space=True)
    assert key("\ud800") != key("?")


@given(st.text(alphabet="ab \n\u3000", max_size=40), st.integers(1, 7))
def test_a_long_text_is_hashed_in_pieces_as_a_whole_one_is(text: str, piece: int) -> None:
    collapsed = " ".join(text.split()).encode()
    expected = hashlib.blake2b(collapsed, digest_size=16).digest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_module, "_PIECE", piece)
        assert Exact().keys(Document(text)).tobytes() == expected


def jaccard(one: list[str], other: list[str], ngram: int) -> float:
    """By sets of tuples of words."""
    sets = [
        {tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)}
        for words in (one, other)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def edited(words: list[str], edits: int, choice: random.Random) -> list[str]:
    """The words with some replaced."""
    changed = list(words)
    for place in choice.sample(range(len(words)), edits):
        changed[place] = choice.choice(WORDS)
    return changed


def share_a_band(one: list[str], other: list[str], near: Near) -> bool:
    keys = [near.keys(Document(" ".join(words))) for words in (one, other)]
    return bool((keys[0] == keys[1]).all(axis=1).any())


@pytest.mark.parametrize(
    ("edits", "pairs"), [(0, 20), (2, 150), (6, 150), (12, 150), (20, 150), (60, 100)]
)
def test_near_pairs_are_found_as_often_as_their_jaccard_similarity_says(
    edits: int, pairs: int
) -> None:
    """1 - (1 - s^rows)^bands, within four standard deviations."""
    near = Near()
    choice = random.Random(edits)
    expected = []
    found = []
    for _ in range(pairs):
        words = choice.choices(WORDS, k=200)
        other = edited(words, edits, choice)
        similarity = jaccard(words, other, near.ngram)
        expected.append(1 - (1 - similarity**near.rows) ** near.bands)
        found.append(share_a_band(words, other, near))
    chances = np.array(expected)
    deviation = np.sqrt((chances * (1 - chances)).sum())
    assert abs(sum(found) - chances.sum()) <= 4 * deviation + 0.5


def test_marks_and_case_make_no_difference_and_a_short_text_is_one_run() -> None:
    near = Near()
    one = near.keys(Document("The harbour, was «quiet» that morning."))
    other = near.keys(Document("the harbour was quiet that morning"))
    assert one is not None
    assert other is not None
    assert (one == other).all()
    assert shingles(["a", "b"], 5) == ["a b"]
    assert near.keys(Document(" ... ")) is None


def test_a_band_has_its_own_part_of_the_signature() -> None:
    keys = Near().keys(Document("one two three four five six seven"))
    assert keys is not None
    assert keys.shape == (14, 1)
    assert len(set(keys[:, 0].tolist())) == 14
