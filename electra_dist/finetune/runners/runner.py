"""The outputs of a model for examples, without gradients.

Comes in: model inputs of each example: a row of tokens, or a list of rows where the model takes
several per example (multiple choice). Goes out: its outputs of each, in their order, on the CPU in
fp32. Examples of about one length go through the model together; what an example gets does not
depend on the others but for rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

#: Examples whose inputs are in memory at a time: they may be made when they are asked for.
_PART = 1024

Array = NDArray[np.floating[Any]]
Features = Sequence[Mapping[str, Any]]
#: Of one example: an array for each output of the model. Outputs by token are as long as the
#: example.
Output = tuple[Array, ...]
Outputs = Sequence[Output]


class Runner(Protocol):
    """A model ready to run."""

    def __call__(self, features: Features) -> list[Output]:
        """The outputs of each example; other keys than the model's inputs are left out."""


class TorchRunner:
    """A model of `transformers` on a device. Its mode is put back after each call."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device, batch: int = 32) -> None:
        """`batch`: rows of tokens at a time."""
        self._model = model.to(device)
        self._tokenizer = tokenizer
        self._device = device
        self._batch = batch
        self._by_token: tuple[bool, ...] | None = None

    def __call__(self, features: Features) -> list[Output]:
        """Of a model in evaluation mode."""
        training = self._model.training
        self._model.eval()
        found: list[Output] = []
        try:
            for start in range(0, len(features), _PART):
                found += self._of_part(features[start : start + _PART])
        finally:
            self._model.train(training)
        return found

    def _of_part(self, features: Features) -> list[Output]:
        found: list[Output] = [()] * len(features)
        for chosen in batches_by_length(features, self._batch):
            batch = [features[index] for index in chosen]
            for index, output in zip(chosen, self._outputs(batch), strict=True):
                found[index] = output
        return found

    @torch.inference_mode()
    def _outputs(self, batch: Features) -> list[Output]:
        inputs = padded_inputs(self._tokenizer, batch)
        arrays = self._run(inputs)
        mask = inputs["attention_mask"]
        if mask.ndim == 3:
            return [tuple(array[row] for array in arrays) for row in range(len(batch))]
        if self._by_token is None:
            self._by_token = self._which_grow(batch[0])
        lengths = mask.sum(dim=1).tolist()
        return [
            cut_outputs(arrays, row, length, self._by_token) for row, length in enumerate(lengths)
        ]

    def _run(self, inputs: Mapping[str, torch.Tensor]) -> list[NDArray[np.float32]]:
        on_device = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        found = self._model(**on_device).to_tuple()
        return [output.float().cpu().numpy() for output in found]

    def _which_grow(self, example: Mapping[str, Any]) -> tuple[bool, ...]:
        """Of each output, whether it is by token: longer for two tokens than for one."""
        names = [name for name in self._tokenizer.model_input_names if name in example]
        shapes = []
        for tokens in (1, 2):
            short = {name: list(example[name][:1]) * tokens for name in names}
            inputs = padded_inputs(self._tokenizer, [short])
            shapes.append([array.shape for array in self._run(inputs)])
        return tuple(one != other for one, other in zip(*shapes, strict=True))


def rows_of(example: Mapping[str, Any]) -> int:
    """How many rows of tokens an example has: 0 where it is one row, not a list of rows."""
    ids = example["input_ids"]
    if ids and isinstance(ids[0], Sequence):
        return len(ids)
    return 0


def batches_by_length(features: Features, batch: int) -> list[list[int]]:
    """Indices of examples that go through the model together, up to `batch` rows of tokens: the
    longest first, only those with equally many rows.
    """

    def size(index: int) -> tuple[int, int]:
        example = features[index]
        ids = example["input_ids"]
        rows = rows_of(example)
        if rows:
            return rows, max(len(row) for row in ids)
        return rows, len(ids)

    sizes = {index: size(index) for index in range(len(features))}
    order = sorted(sizes, key=lambda index: sizes[index], reverse=True)
    found = []
    for rows, group in itertools.groupby(order, key=lambda index: sizes[index][0]):
        alike = list(group)
        examples = max(1, batch // max(1, rows))
        found += [alike[start : start + examples] for start in range(0, len(alike), examples)]
    return found


def padded_inputs(tokenizer: Any, batch: Features) -> dict[str, torch.Tensor]:
    """The model's inputs of a batch, padded to its longest row: (B, L), or (B, C, L) of examples
    with C rows each. Other keys are left out.
    """
    names = [name for name in tokenizer.model_input_names if name in batch[0]]
    rows = rows_of(batch[0])
    if rows:
        flat = [
            {name: example[name][row] for name in names} for example in batch for row in range(rows)
        ]
    else:
        flat = [{name: example[name] for name in names} for example in batch]
    padded = dict(tokenizer.pad(flat, return_tensors="pt"))
    if rows:
        return {name: tensor.view(len(batch), rows, -1) for name, tensor in padded.items()}
    return padded


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
