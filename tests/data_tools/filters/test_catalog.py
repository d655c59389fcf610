"""What a user writes becomes filters, or one sentence that names what there is."""

from __future__ import annotations

import importlib.util

import pytest

from data_tools.filters.catalog import FILTERS, parse_filters
from data_tools.filters.kinds import KeyFilter, TextFilter
from data_tools.filters.length import Length
from electra_dist.errors import DataError, UserError


def test_filters_work_in_the_order_of_the_catalog_whatever_the_order_they_are_given_in() -> None:
    found = parse_filters(["near", "exact", "length:min_words=20,max_word_length=12.5", "html"])
    assert [one.name for one in found] == ["html", "length", "exact", "near"]
    assert found[1] == Length(min_words=20, max_word_length=12.5)
    assert found[0].values == {"main_content": True, "everything": False}


def test_those_of_single_documents_come_before_those_of_the_corpus() -> None:
    kinds = [issubclass(kind, KeyFilter) for kind in FILTERS.values()]
    assert kinds == sorted(kinds)
    assert all(issubclass(kind, TextFilter | KeyFilter) for kind in FILTERS.values())


def test_every_filter_tells_what_it_drops_its_source_and_what_each_parameter_means() -> None:
    for kind in FILTERS.values():
        assert "arXiv" in kind.source, kind
        assert kind.drops, kind
        assert all(parameter.meaning for parameter in kind.parameters()), kind
        kind().check()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no `filter` given; there are html, length, letters"),
        (["lenght"], "no filter 'lenght' (did you mean 'length'?); there are html, length"),
        ([""], "no filter ''"),
        (["length:min_word=3"], "no parameter 'min_word' (did you mean 'min_words'?); it has"),
        (["length:"], "no parameter ''"),
        (["length:min_words"], "min_words has no value; write min_words=VALUE"),
        (["length:min_words=ten"], "length:min_words=ten: expected a whole number, such as 50"),
        (["length:min_words=2.5"], "expected a whole number"),
        (["length:min_words=-1"], "length:min_words=-1: expected 0 or more"),
        (["length:min_word_length=nan"], "min_word_length=nan: expected 0 or more"),
        (["length:min_words=5,min_words=6"], "min_words is set twice"),
        (["length", "length:min_words=5"], "length is named twice"),
        (["length:min_words=50,max_words=20"], "max_words=20: expected 0 for no limit, or at"),
        (["letters:min_letters=60"], "letters:min_letters=60.0: expected a share from 0 to 1"),
        (["repetition:top_2=2"], "repetition:top_2=2.0: expected a share from 0 to 1"),
        (["html:everything=2"], "html:everything=2: expected true or false, such as false"),
        (["near:bands=0"], "near:bands=0: expected at least 1"),
        (["near:rows=0"], "near:rows=0: expected at least 1"),
        (["near:bands=1000"], "near:bands=1000: expected at most 4,096 numbers"),
        (["language:language=xx"], "language:language=xx: expected codes joined by +, 'xx' is"),
        (["language:language="], "language:language=: expected codes joined by +, '' is"),
    ],
)
def test_what_cannot_be_is_one_sentence_that_names_it(given: list[str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_filters(given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package"), [("html", "resiliparse"), ("language", "py3langid"), ("near", "rensa")]
)
def test_a_missing_package_is_named_with_its_extra(name: str, package: str, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda one, *rest: None if one == package else found(one, *rest),
    )
    with pytest.raises(UserError, match=rf"{name} needs {package}: pip install .*\[clean\]"):
        parse_filters([name])
    assert parse_filters(["length", "letters", "repetition", "exact"])
