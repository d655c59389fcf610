"""The detector's words against the logits of transformers, taken by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from electra_dist.errors import UserError
from electra_dist.suspects.detector import Detector, word_probability
from tests.support.pairs import CPU, transformers_model

TEXTS = ["The value of the object.", "", "A literal [MASK] is plain text, isn't it?"]


@pytest.fixture(scope="module")
def detector(pair: Path) -> Detector:
    return Detector.open(pair / "discriminator", CPU)


def by_hand(pair: Path, text: str) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Offsets and probabilities of the tokens of a short text."""
    tokenizer, model = transformers_model(pair / "discriminator", "AutoModelForPreTraining")
    inputs = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0, 1:-1].tolist()
    with torch.no_grad():
        replaced = torch.sigmoid(model(**inputs).logits[0, 1:-1]).numpy()
    return [(start, end) for start, end in offsets], replaced


def test_a_word_is_as_suspect_as_its_tokens_make_it(detector: Detector, pair: Path) -> None:
    for text, judged in zip(TEXTS, detector.judge(TEXTS), strict=True):
        if not text:
            assert judged.words() == []
            continue
        offsets, replaced = by_hand(pair, text)
        assert list(judged.tokens.offsets) == offsets
        np.testing.assert_allclose(judged.replaced, replaced, atol=1e-5)
        for word, probability in judged.words():
            own = [
                one
                for (start, end), one in zip(offsets, replaced, strict=True)
                if start < word.end and end > word.start
            ]
            assert probability == pytest.approx(word_probability(np.array(own)), abs=1e-5)


def test_a_long_text_is_judged_to_its_end(detector: Detector, pair: Path) -> None:
    text = " ".join(f"The value of object number {number}." for number in range(60))
    (judged,) = detector.judge([text])
    assert len(judged.tokens.ids) > 300
    assert (judged.replaced > 0).all()
    tokenizer, model = transformers_model(pair / "discriminator", "AutoModelForPreTraining")
    ids = list(judged.tokens.ids)
    for window in (ids[:94], ids[-94:]):  # 96 positions
        inputs = [tokenizer.cls_token_id, *window, tokenizer.sep_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([inputs])).logits[0, 1:-1]
        replaced = torch.sigmoid(logits).numpy()
        if window == ids[:94]:
            np.testing.assert_allclose(judged.replaced[:80], replaced[:80], atol=1e-5)
        else:
            np.testing.assert_allclose(judged.replaced[-20:], replaced[-20:], atol=1e-5)


def test_another_model_is_refused(pair: Path) -> None:
    with pytest.raises(UserError, match=r"generator.* found by a discriminator"):
        Detector.open(pair / "generator", CPU)
