"""The outputs of a model for examples, without gradients.

Comes in: model inputs of each example. Goes out: its outputs of each, in their order, on the CPU in
fp32. Examples of about one length go through the model together; what an example gets does not
depend on the others but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Features = Sequence[Mapping[str, Any]]
#: Of one example: an array for each output of the model. Outputs by token are as long as the
#: example.
Output = tuple[NDArray[np.float32], ...]
Outputs = Sequence[Output]


class Runner(Protocol):
    """A model ready to run."""

    def __call__(self, features: Features) -> list[Output]:
        """The outputs of each example; other keys than the model's inputs are left out."""


class TorchRunner:
    """A model of `transformers` on a device. Its mode is put back after each call."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device, batch: int = 32) -> None:
        """`batch`: examples at a time."""
        self._model = model.to(device)
        self._tokenizer = tokenizer
        self._device = device
        self._batch = batch
        self._by_token: tuple[bool, ...] | None = None

    def __call__(self, features: Features) -> list[Output]:
        """Of a model in evaluation mode."""
        training = self._model.training
        self._model.eval()
        found: list[Output] = [()] * len(features)
        try:
            for chosen in batches_by_length(features, self._batch):
                batch = [features[index] for index in chosen]
                for index, output in zip(chosen, self._outputs(batch), strict=True):
                    found[index] = output
        finally:
            self._model.train(training)
        return found

    @torch.inference_mode()
    def _outputs(self, batch: Features) -> list[Output]:
        names = self._tokenizer.model_input_names
        inputs = [{name: one[name] for name in names if name in one} for one in batch]
        padded = self._tokenizer.pad(inputs, return_tensors="pt")
        lengths = padded["attention_mask"].sum(dim=1).tolist()
        arrays = self._run(padded)
        if self._by_token is None:
            self._by_token = self._which_grow(inputs[0])
        return [
            cut_outputs(arrays, row, length, self._by_token) for row, length in enumerate(lengths)
        ]

    def _run(self, padded: Any) -> list[NDArray[np.float32]]:
        found = self._model(**padded.to(self._device)).to_tuple()
        return [output.float().cpu().numpy() for output in found]

    def _which_grow(self, inputs: Mapping[str, Any]) -> tuple[bool, ...]:
        """Of each output, whether it is by token: longer for two tokens than for one."""
        shapes = []
        for tokens in (1, 2):
            short = {name: list(value[:1]) * tokens for name, value in inputs.items()}
            padded = self._tokenizer.pad([short], return_tensors="pt")
            shapes.append([array.shape for array in self._run(padded)])
        return tuple(one != other for one, other in zip(*shapes, strict=True))


def batches_by_length(features: Features, batch: int) -> list[list[int]]:
    """Indices of examples that go through the model together: the longest first."""
    order = sorted(range(len(features)), key=lambda index: -len(features[index]["input_ids"]))
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def cut_outputs(
    arrays: Sequence[NDArray[np.float32]], row: int, length: int, by_token: Sequence[bool]
) -> Output:
    """The outputs of one row of a batch; those that are `by_token` cut to its `length`."""
    found = []
    for array, cut in zip(arrays, by_token, strict=True):
        own = array[row]
        if cut:
            own = own[:length]
        found.append(own)
    return tuple(found)
