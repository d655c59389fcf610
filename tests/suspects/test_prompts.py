"""Labels by prompts, against the probabilities of transformers, put together by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from electra_dist.errors import UserError
from electra_dist.suspects.prompts import Prompt, Prompter, parse_labels
from tests.support.pairs import CPU, transformers_model

LABELS = {"good": "great", "bad": "a terrible waste"}
TEMPLATE = "{text} It was {label}."


def by_hand(pair: Path, template: str, text: str) -> np.ndarray:
    """The geometric mean of the words' chances of being original, per label, not normalised."""
    tokenizer, model = transformers_model(pair / "discriminator", "AutoModelForPreTraining")
    scores = []
    for words in LABELS.values():
        prompt = template.replace("{text}", text).replace("{label}", words)
        start = template.replace("{text}", text).index("{label}")
        inputs = tokenizer(prompt, return_tensors="pt", return_offsets_mapping=True)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            original = torch.sigmoid(-model(**inputs).logits[0])
        own = [o for o, (s, e) in zip(original, offsets, strict=True) if s < start + len(words)
               and e > start]  # fmt: skip
        scores.append(float(torch.stack(own).log().mean().exp()))
    return np.array(scores)


@pytest.mark.parametrize("template", [TEMPLATE, "A {label} film: {text}"])
def test_labels_are_as_likely_as_their_words_are_original(pair: Path, template: str) -> None:
    texts = ["The film is moving.", ""]
    prompt = Prompt(template, LABELS)
    found = Prompter.open(pair / "discriminator", prompt, CPU).probabilities(texts)
    for text, row in zip(texts, found, strict=True):
        scores = by_hand(pair, template, text)
        np.testing.assert_allclose(row, scores / scores.sum(), rtol=1e-4)


def test_calibration_divides_by_what_a_label_gets_without_a_text(pair: Path) -> None:
    prompt = Prompt(TEMPLATE, LABELS)
    prompter = Prompter.open(pair / "discriminator", prompt, CPU, calibrate=True)
    (row,) = prompter.probabilities(["The film is moving."])
    scores = by_hand(pair, TEMPLATE, "The film is moving.") / by_hand(pair, TEMPLATE, "")
    np.testing.assert_allclose(row, scores / scores.sum(), rtol=1e-4)
    (empty,) = prompter.probabilities([""])
    np.testing.assert_allclose(empty, 0.5, rtol=1e-6)


def test_a_long_text_is_cut_and_the_prompt_is_whole(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompter = Prompter.open(pair / "discriminator", Prompt(TEMPLATE, LABELS), CPU)
    found = prompter.probabilities(["word " * 300, "short"])
    assert "1 of 2 texts are too long for the prompt" in capsys.readouterr().err
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_labels_are_read_from_a_line() -> None:
    assert parse_labels("positive=great, negative = a waste,mixed") == {
        "positive": "great",
        "negative": "a waste",
        "mixed": "mixed",
    }
    with pytest.raises(UserError, match="'a' is there twice"):
        parse_labels("a=x,a=y")


@pytest.mark.parametrize(
    ("template", "labels", "said"),
    [
        ("It was {label}.", LABELS, "expected {text}"),
        ("{text} {label} {label}", LABELS, "expected {label}"),
        (TEMPLATE, {"a": "x"}, "two labels or more"),
        (TEMPLATE, {"a": "x", "b": " "}, "are empty"),
    ],
)
def test_what_is_no_prompt_is_refused(template: str, labels: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Prompt(template, labels)
