"""The loss of lists, against the loss of transformers and a formula in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import DataCollatorForMultipleChoice

from electra_dist.finetune.tasks.candidates.listwise import ListCollator, list_loss

TEXT = "the value of the object"
CANDIDATES = ("the film is long", "a class", "the module and the value", "none of them")


def example(tokenizer: Any, count: int, right: int) -> dict[str, Any]:
    encoded = tokenizer([TEXT] * count, list(CANDIDATES[:count]))
    return dict(encoded) | {"labels": right}


def test_of_equally_long_lists_it_is_the_loss_of_transformers(encoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModelForMultipleChoice.from_pretrained(encoder).eval()
    examples = [example(tokenizer, 4, right) for right in (2, 0, 3)]
    expected = model(**DataCollatorForMultipleChoice(tokenizer)(examples))
    expected.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    batch = ListCollator(tokenizer, of_choices=True)(examples)
    labels = batch.pop("labels")
    assert batch["input_ids"].shape[:2] == (12, 1)
    outputs = model(**batch)
    loss = list_loss(outputs, labels, num_items_in_batch=(labels != -100).sum())
    loss.backward()
    assert loss.item() == pytest.approx(expected.loss.item(), abs=1e-6)
    torch.testing.assert_close(outputs.logits.reshape(3, 4), expected.logits, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)


def test_lists_of_unequal_lengths_see_their_own_candidates_only(encoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    examples = [example(tokenizer, count, right) for count, right in ((2, 1), (4, 0), (3, 2))]
    batch = ListCollator(tokenizer, of_choices=False)(examples)
    assert batch["input_ids"].shape[0] == 9
    assert batch["labels"].argmax(dim=1).tolist() == [1, 0, 2]
    counted = int((batch["labels"] != -100).sum())  # as the Trainer counts what a step has
    assert counted == 3
    logits = torch.tensor(np.random.default_rng(0).normal(size=(9, 1)), requires_grad=True)
    loss = list_loss({"logits": logits}, batch["labels"], counted)
    lists = np.split(logits.detach().numpy().ravel(), [2, 6])
    each = [
        np.log(np.exp(scores).sum()) - scores[right]
        for scores, right in zip(lists, (1, 0, 2), strict=True)
    ]
    assert loss.item() == pytest.approx(np.mean(each), abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    (gradient, *_) = np.split(logits.grad.numpy().ravel(), [2, 6])
    probabilities = np.exp(lists[0]) / np.exp(lists[0]).sum()
    np.testing.assert_allclose(gradient, (probabilities - [0, 1]) / 3, atol=1e-6)
