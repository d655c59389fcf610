"""What a runner gives for an example is what the model gives for it alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from electra_dist.finetune.runners.runner import TorchRunner

TEXTS = ["The value.", "", "A longer text, which goes on for a while, and then some more.", "Ab cd"]


@pytest.mark.parametrize(
    "auto_class",
    [
        "AutoModelForSequenceClassification",
        "AutoModelForPreTraining",
        "AutoModelForQuestionAnswering",
    ],
)
def test_outputs_are_those_of_each_example_alone(encoder: Path, auto_class: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = getattr(transformers, auto_class).from_pretrained(encoder)
    model.train()  # its dropout is off all the same
    features = [dict(tokenizer(text)) | {"labels": 0} for text in TEXTS]
    found = TorchRunner(model, tokenizer, torch.device("cpu"), batch=3)(features)
    assert model.training
    model.eval()
    for text, outputs in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).to_tuple()
        assert len(outputs) == len(expected)
        for output, array in zip(outputs, expected, strict=True):
            assert output.dtype == np.float32
            np.testing.assert_allclose(output, array[0].numpy(), atol=1e-5)


def test_as_many_classes_as_tokens_are_no_tokens(encoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    longest = max(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=longest
    )
    features = [dict(tokenizer(text)) for text in TEXTS]
    found = TorchRunner(model, tokenizer, torch.device("cpu"))(features)
    assert [logits.shape for (logits,) in found] == [(longest,)] * len(TEXTS)


def test_examples_of_several_rows_are_each_as_alone(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("electra_dist.finetune.runners.runner._PART", 3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModelForMultipleChoice.from_pretrained(encoder).eval()
    lists = [TEXTS[:2], TEXTS, TEXTS[1:4], TEXTS[2:], TEXTS[::-1], TEXTS[:3] * 15]
    features = [dict(tokenizer(list(texts))) | {"labels": 0} for texts in lists]
    found = TorchRunner(model, tokenizer, torch.device("cpu"), batch=8)(features)
    for texts, (logits,) in zip(lists, found, strict=True):
        inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(**{name: t.unsqueeze(0) for name, t in inputs.items()}).logits[0]
        assert logits.shape == (len(texts),)
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
