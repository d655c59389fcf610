"""What is varied, as the user writes it."""

from __future__ import annotations

import pytest

from electra_dist.errors import UserError
from electra_dist.search.space import Choice, Range, parse_space


def test_each_form() -> None:
    words = ["lr=1e-5..1e-3:log", "epochs=2..5", "decay=0.6..1", "batch=16,32", "kind=a,true"]
    assert parse_space(words) == (
        Range("lr", 1e-5, 1e-3, log=True),
        Range("epochs", 2, 5),
        Range("decay", 0.6, 1),
        Choice("batch", (16, 32)),
        Choice("kind", ("a", True)),
    )


def test_the_text_of_a_dimension_gives_it_again() -> None:
    words = ["lr=1e-05..0.001:log", "epochs=2..5", "batch=16,32"]
    space = parse_space(words)
    assert [dimension.text for dimension in space] == words


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lr", "expected name=LOW..HIGH"),
        ("lr=", "expected name=LOW..HIGH"),
        ("=1..2", "expected name=LOW..HIGH"),
        ("lr=2..1", "lower number before"),
        ("lr=1..1", "lower number before"),
        ("lr=0..1:log", "begins above 0"),
        ("lr=1..2:lin", "'lin' behind the colon"),
        ("lr=a..2", "'a' is no number"),
        ("lr=1..inf", "inf is not finite"),
        ("batch=16", "two or more different values"),
        ("batch=16,16", "two or more different values"),
        ("batch=16,{a: 1}", "is no value"),
    ],
)
def test_what_cannot_be(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        parse_space([word])
    assert word in str(error.value)


def test_once_each_and_at_least_one() -> None:
    with pytest.raises(UserError, match="varied twice"):
        parse_space(["lr=1..2", "lr=2..3"])
    with pytest.raises(UserError, match="nothing is varied"):
        parse_space([])
