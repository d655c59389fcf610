"""Batches of lists of candidates, and the loss that sets one candidate above the others.

The loss of a list is the negative logarithm of the softmax over its candidates at the right one
(Bruch et al., "An Analysis of the Softmax Cross Entropy Loss for Learning-to-Rank with Binary
Relevance", ICTIR 2019). It compares candidates of one list only: no threshold has to hold for all
texts.

Letters: B lists, C candidates of the longest list, R rows of all lists, L tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

#: In the labels: not the right candidate; a label that `transformers` does not count.
OTHER = -100


class ListCollator:
    """Lists with their rows and the place of the right candidate (`labels`) to a batch.

    The rows of all lists follow one another without padding to the longest list: (R, L), or
    (R, 1, L) for a model of multiple choice. The labels are (B, C): at the right candidate how many
    there are, elsewhere `OTHER`; so there are as many labels as lists.
    """

    def __init__(self, tokenizer: Any, of_choices: bool) -> None:
        """`of_choices`: the model is one of multiple choice."""
        self._tokenizer = tokenizer
        self._of_choices = of_choices

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch of these lists."""
        counts = [len(example["input_ids"]) for example in examples]
        rows = [
            {name: values[row] for name, values in example.items() if name != "labels"}
            for example, count in zip(examples, counts, strict=True)
            for row in range(count)
        ]
        batch = dict(self._tokenizer.pad(rows, return_tensors="pt"))
        if self._of_choices:
            batch = {name: tensor.unsqueeze(1) for name, tensor in batch.items()}
        labels = torch.full((len(examples), max(counts)), OTHER)
        for index, (example, count) in enumerate(zip(examples, counts, strict=True)):
            labels[index, example["labels"]] = count
        return batch | {"labels": labels}


def list_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int
) -> torch.Tensor:
    """Of a batch of `ListCollator`: the sum over its lists, divided by the number of lists of the
    whole step; called as `transformers.Trainer` does.
    """
    logits = outputs["logits"].reshape(-1).float()
    counts = labels.max(dim=1, keepdim=True).values
    present = torch.arange(labels.shape[1], device=labels.device) < counts
    scores = logits.new_full(labels.shape, torch.finfo(torch.float32).min)
    scores[present] = logits
    return cross_entropy(scores, labels.argmax(dim=1), reduction="sum") / num_items_in_batch
