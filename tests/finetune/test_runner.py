"""What a runner gives for an example is what the model gives for it alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from electra_dist.finetune.runner import TorchRunner

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


def test_an_output_of_the_whole_is_never_cut(encoder: Path) -> None:
    """Here it is as wide as the longest example of the batch has tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    features = [dict(tokenizer(text)) for text in TEXTS]
    longest = max(len(feature["input_ids"]) for feature in features)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=longest
    )
    found = TorchRunner(model, tokenizer, torch.device("cpu"))(features)
    assert [logits.shape for (logits,) in found] == [(longest,)] * len(TEXTS)
