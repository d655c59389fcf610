"""What each step makes of a text, against texts written by hand."""

from __future__ import annotations

import pytest

from electra_dist.errors import UserError
from electra_dist.finetune import cleaning
from electra_dist.finetune.cleaning import STEPS, check_steps, cleaned


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>A <b>great</b> film.</p>", "A great film."),
        ("fish &amp; chips &lt;3 caf&eacute;", "fish & chips <3 café"),
        ("one<br>two<p>three</p>", "one two three"),
        ("<script>let x = 1</script>shown<!-- not this -->", "shown"),
        ("no page, 5 < 6, I <3 it", "no page, 5 < 6, I <3 it"),
        ("a lone \ud800 surrogate", "a lone ? surrogate"),
        ("", ""),
    ],
)
def test_html_becomes_what_a_reader_sees(page: str, text: str) -> None:
    assert cleaned([page], ["html"]) == [text]


def test_stop_words_go_whatever_their_case_and_the_rest_stays() -> None:
    texts = ["The film was not very good, and I don't like it.", "Theatre of the absurd!"]
    assert cleaned(texts, ["stop-words"]) == ["film good, don't like .", "Theatre absurd!"]


def test_steps_are_done_in_one_order_whatever_the_user_writes() -> None:
    page = ["<B>The</B> Film &AMP; its end"]
    expected = ["film & end"]
    assert cleaned(page, ["stop-words", "lower", "html"]) == expected
    assert cleaned(page, ["html", "lower", "stop-words"]) == expected
    assert cleaned(page, []) == page


def test_texts_without_words_left_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cleaned(["it was not", "", "a film"], ["stop-words"]) == ["", "", "film"]
    assert "1 of 3 texts have no words left after stop-words" in capsys.readouterr().err


def test_unknown_steps_are_refused() -> None:
    check_steps(tuple(STEPS), "`clean`")
    with pytest.raises(UserError, match=r"^`clean` 'htm': not known; expected html, lower, stop-"):
        check_steps(["lower", "htm"], "`clean`")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning.importlib.util, "find_spec", lambda name: None)
    check_steps(["lower"], "`clean`")
    with pytest.raises(UserError, match=r"`clean` html needs resiliparse: .*electra-dist\[clean\]"):
        check_steps(["html"], "`clean`")
