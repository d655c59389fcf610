"""The filters of single documents, against brute-force references and the bounds of their paper."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.filters import document as document_module
from data_tools.filters.document import Document
from data_tools.filters.html import Html
from data_tools.filters.language import Language
from data_tools.filters.length import Length
from data_tools.filters.letters import Letters, letter_share
from data_tools.filters.repetition import Repetition, repeated_texts, repeated_words

SENTENCE = "the committee met again on the following morning and found no fault with the plan "


def prose(words: int) -> str:
    """Real-looking words, none of which repeats."""
    return " ".join(
        f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}ing" for n in range(words)
    )


# --- words ----------------------------------------------------------------------------------------


def test_words_stand_between_white_space_and_each_character_is_one_where_there_is_none() -> None:
    assert Document("It's a well-known fact.").words == ["It's", "a", "well-known", "fact."]
    assert Document("我爱北京, ok").words == ["我", "爱", "北", "京", ",", "ok"]
    assert Document("It's A «well-known» fact.").bare_words == [
        "it",
        "s",
        "a",
        "well",
        "known",
        "fact",
    ]
    assert Document("नमस्ते दुनिया").words == ["नमस्ते", "दुनिया"]


# --- length ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "reason"), [(49, "min_words"), (50, None), (51, None)])
def test_fewer_than_fifty_words_are_too_short(words: int, reason: str | None) -> None:
    assert Length().why_not(Document(prose(words))) == reason


def test_each_bound_of_the_length_drops_and_zero_sets_none() -> None:
    text = prose(100)
    assert Length(max_words=99).why_not(Document(text)) == "max_words"
    assert Length(max_words=100).why_not(Document(text)) is None
    assert Length(min_characters=len(text) + 1).why_not(Document(text)) == "min_characters"
    assert Length(max_characters=len(text) - 1).why_not(Document(text)) == "max_characters"
    assert Length().why_not(Document("a b " * 50)) == "min_word_length"
    assert Length().why_not(Document("abcdefghijk " * 50)) == "max_word_length"
    nothing = Length(min_words=0, max_words=0, min_word_length=0, max_word_length=0)
    assert nothing.why_not(Document("")) is None


def test_chinese_is_measured_by_its_characters_and_has_no_length_of_words() -> None:
    assert Length().why_not(Document("数据" * 30)) is None
    assert Length().why_not(Document("数据" * 20)) == "min_words"


def test_all_words_of_a_very_long_document_count(monkeypatch) -> None:
    monkeypatch.setattr("data_tools.filters.length.JUDGED_CHARACTERS", 1000)
    monkeypatch.setattr(document_module, "JUDGED_CHARACTERS", 1000)
    text = "word " * 2000  # the cuts fall between words
    assert Length(max_words=2000).why_not(Document(text)) is None
    assert Length(max_words=1999).why_not(Document(text)) == "max_words"


# --- letters --------------------------------------------------------------------------------------


@settings(deadline=None)  # the first call makes a table
@given(st.text(max_size=200))
def test_the_share_of_letters_is_that_of_the_unicode_categories(text: str) -> None:
    shown = [character for character in text if not character.isspace()]
    letters = [character for character in shown if unicodedata.category(character)[0] in "LM"]
    expected = len(letters) / len(shown) if shown else 0.0
    assert letter_share(text) == pytest.approx(expected)


def test_numbers_symbols_and_ellipses_are_dropped_and_prose_is_not() -> None:
    assert Letters().why_not(Document(SENTENCE * 5)) is None
    assert Letters().why_not(Document("12.50 17.30 99 ; 1,200 " * 20)) == "min_letters"
    assert Letters().why_not(Document("extraordinarily - | -- " * 20)) == "min_words_with_letters"
    assert Letters().why_not(Document("some #tag here " * 20)) == "max_symbols"
    assert Letters().why_not(Document("go on... reading " * 20)) == "max_symbols"
    assert Letters().why_not(Document("weiter… lesen " * 20)) == "max_symbols"
    assert Letters().why_not(Document("हिन्दी में लिखा हुआ पाठ " * 20)) is None


# --- repetition -----------------------------------------------------------------------------------


def brute_force(words: list[str]) -> dict[str, float]:
    """The shares of runs of words by the definition, in loops over tuples."""
    total = sum(map(len, words))
    found = {}
    for count in range(2, 11):
        runs = [tuple(words[start : start + count]) for start in range(len(words) - count + 1)]
        times = Counter(runs)
        if count <= 4:
            most = max(times.values(), default=0)
            sizes = [sum(map(len, run)) * most for run in times if times[run] == most]
            found[f"top_{count}"] = min(1.0, max(sizes) / total) if most > 1 else 0.0
            continue
        seen: set[tuple[str, ...]] = set()
        inside = set()
        for start, run in enumerate(runs):
            if run in seen:
                inside |= set(range(start, start + count))
            seen.add(run)
        found[f"repeated_{count}"] = sum(len(words[place]) for place in inside) / max(1, total)
    return found


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["a", "bc", "def", "ghij"]), min_size=1, max_size=60))
def test_repeated_runs_of_words_are_those_of_a_loop_over_all_runs(words: list[str]) -> None:
    expected = brute_force(words)
    found = dict.fromkeys(expected, 0.0) | dict(repeated_words(words))
    assert found == pytest.approx(expected)


@given(st.lists(st.sampled_from(["one", "two", "four", "fives"]), max_size=30))
def test_repeated_lines_are_those_that_were_there_before(lines: list[str]) -> None:
    before = [line for place, line in enumerate(lines) if line in lines[:place]]
    found = repeated_texts(lines)
    assert found.texts == pytest.approx(len(before) / max(1, len(lines)))
    characters = sum(map(len, before)) / max(1, sum(map(len, lines)))
    assert found.characters == pytest.approx(characters)


def test_repetition_is_dropped_by_the_first_measure_that_is_passed() -> None:
    fresh = [prose(500)[start : start + 80] for start in range(0, 2400, 80)]
    assert Repetition().why_not(Document("\n".join(fresh))) is None
    menu = "\n".join([*fresh[:4], *(["Read more"] * 4)])
    assert Repetition().why_not(Document(menu)) == "lines"
    long_line = "\n".join([*fresh[:7], fresh[0], fresh[1] * 3, fresh[1] * 3])
    assert Repetition().why_not(Document(long_line)) == "line_characters"
    spam = "buy shoes now " * 40
    assert Repetition().why_not(Document(spam)) == "top_2"
    assert Repetition(top_2=1, top_3=1, top_4=1).why_not(Document(spam)) == "repeated_5"
    assert Repetition(**dict.fromkeys(Repetition().values, 1)).why_not(Document(spam)) is None


# --- HTML -----------------------------------------------------------------------------------------

PAGE = """<!-- made by hand -->
<!DOCTYPE html>
<html><head><title>Lobsters</title><style>p {color: red}</style></head>
<body><nav><a href="/">Home</a> <a href="/all">All pages</a></nav>
<main><h1>The lobster</h1><p>It lives in the sea &amp; is <b>blue</b>.</p>
<p>Fishermen catch it with pots, in most places from boats.</p></main>
<script>track("reader")</script><footer>Imprint</footer></body></html>"""


def test_a_page_becomes_its_main_text() -> None:
    text = Html().rewrite(Document(PAGE)).text
    assert "It lives in the sea & is blue." in text
    assert "Fishermen catch it" in text
    assert not re.search(r"<|track|color|Imprint|All pages", text)
    assert "All pages" in Html(main_content=False).rewrite(Document(PAGE)).text


def test_what_is_no_page_goes_through_as_it_is() -> None:
    for text in ("a < b and c > d", "Use <b>bold</b> text.", "", "<stdio.h> is a header"):
        document = Document(text)
        assert Html().rewrite(document) is document
    assert Html(everything=True).rewrite(Document("Use <b>bold</b> text.")).text == "Use bold text."


def test_a_page_without_text_is_dropped_and_a_lone_surrogate_does_no_harm() -> None:
    empty = Html().rewrite(Document("<html><body><script>x()</script></body></html>"))
    assert Html().why_not(empty) == "empty"
    assert Html().rewrite(Document("<p>fish \ud800 chips</p>")).text == "fish ? chips"


# --- language -------------------------------------------------------------------------------------

ENGLISH = "The harbour was quiet that morning, and the fishermen were mending their nets."
GERMAN = "Der Hafen lag an diesem Morgen still, und die Fischer flickten ihre Netze."
CHINESE = "那天早上港口很安静，渔夫们正在修补他们的渔网，准备明天出海。"


def test_languages_are_kept_that_were_asked_for() -> None:
    kept = {
        code: [
            text
            for text in (ENGLISH, GERMAN, CHINESE)
            if not Language(code).why_not(Document(text))
        ]
        for code in ("en", "de", "en+zh")
    }
    assert kept == {"en": [ENGLISH], "de": [GERMAN], "en+zh": [ENGLISH, CHINESE]}
    assert Language().why_not(Document(GERMAN)) == "language"


def test_text_in_no_language_for_sure_is_dropped() -> None:
    assert Language(min_probability=1.0).why_not(Document("ok 17")) is not None
