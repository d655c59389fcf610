"""What each step makes of a text, against texts written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import electra_dist
from electra_dist.cli import main as cli
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


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])
def test_predict_cleans_as_the_training_did_and_a_pipeline_gets_cleaned_texts(
    encoder: Path, tmp_path: Path, task: Any
) -> None:
    rows = [
        (f"<p>Film <b>{number}</b> is &lt; {number % 7}</p>", number % 2) for number in range(24)
    ]
    pages = tmp_path / "pages.csv"
    pages.write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8"
    )
    out = tmp_path / "out"
    steps = ("lower", "html")
    report = electra_dist.finetune_model(
        encoder,
        pages,
        out,
        dev=pages,
        task=task,
        clean=steps,
        epochs=1,
        max_length=48,
        device="cpu",
    )
    assert json.loads((out / "electra_dist.json").read_text())["clean"] == list(steps)
    assert "Texts are cleaned first (lower, html)" in (out / "README.md").read_text()
    found = electra_dist.predict(out, file=pages, device="cpu")
    assert found.scores == pytest.approx(report.median, abs=1e-5)
    assert found.items[0]["text"] == rows[0][0]
    by_hand = [f"film {number} is < {number % 7}" for number in range(24)]
    answers = transformers.pipeline(
        "text-classification",
        model=str(out),
        top_k=None,
        device="cpu",
        function_to_apply="none" if task == "regression" else None,
    )(by_hand)
    for item, answer in zip(found.items, answers, strict=True):
        ours = item.get("probabilities") or {answer[0]["label"]: item["predicted"]}
        theirs = {one["label"]: one["score"] for one in answer}
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_mistakes_are_said_before_the_training(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", str(encoder), "--train", str(labelled / "train.tsv")]
    words += ["--out", str(tmp_path / "out")]
    assert cli.main([*words, "--clean", "html,htm"]) == 2
    assert "--clean 'htm': not known; expected html, lower, stop-words" in capsys.readouterr().err
    assert cli.main([*words, "--clean", "html", "--task", "question-answering"]) == 2
    assert "--clean html: question-answering takes its texts" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
