"""What the networks read: one micro-batch as tensors on a device.

`electra_dist.batch.MicroBatch` (numpy, made by the loader) comes in, `ModelBatch` (torch) goes out,
under the same names. A NamedTuple, because DeepSpeed's hooks walk tuples of tensors.

Letters: B rows of a micro-batch, L row length, P masked slots a row, K documents a row at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from electra_dist.batch import PADDING_DOCUMENT, MicroBatch


class ModelBatch(NamedTuple):
    """`MicroBatch` on a device; see there for what each array means.

    tokens, inputs, positions             (B, L) int64
    documents                             (B, L) int32, `PADDING_DOCUMENT` on padding
    cu_seqlens                            (N + 1,) int32
    masked_positions, masked_targets      (B, P) int64
    masked_weights                        (B, P) float32
    masked_keys                           (B, P) int64, the bits of the unsigned 64-bit keys
    """

    tokens: Tensor
    inputs: Tensor
    positions: Tensor
    documents: Tensor
    cu_seqlens: Tensor
    masked_positions: Tensor
    masked_targets: Tensor
    masked_weights: Tensor
    masked_keys: Tensor


#: Fields that torch indexes with, and therefore wants as int64.
_INDICES = frozenset({"tokens", "inputs", "positions", "masked_positions", "masked_targets"})


def _to_tensor(name: str, array: npt.NDArray[Any], device: torch.device) -> Tensor:
    if name == "masked_keys":
        array = array.view(np.int64)
    tensor = copy_ahead(torch.from_numpy(np.ascontiguousarray(array)), device)
    if name in _INDICES:
        return tensor.long()
    return tensor


def copy_ahead(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, which lies on the host, on `device`; on CUDA through pinned memory, so that nothing
    waits for it.

    `torch.tensor(..., device="cuda")` would wait until the device has done all its work.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_device(batch: MicroBatch, device: torch.device | str) -> ModelBatch:
    """Copy a micro-batch to `device`;
    on CUDA through pinned memory, without waiting for the copy.
    """
    target = torch.device(device)
    return ModelBatch(
        *(_to_tensor(name, getattr(batch, name), target) for name in ModelBatch._fields)
    )


def rows_of_documents(
    rows: Sequence[Sequence[Sequence[int]]], row_length: int, pad: int
) -> MicroBatch:
    """Pack given documents into rows, nothing masked: for evaluation, export checks and tests.

    `rows[b]` holds the documents of row b, each with its special tokens; a row's documents must fit
    into `row_length` (ValueError otherwise); the rest is `pad`. The one masked slot of each row is
    unused.
    """
    count = len(rows)
    tokens = np.full((count, row_length), pad, np.int32)
    positions = np.zeros((count, row_length), np.int32)
    documents = np.full((count, row_length), PADDING_DOCUMENT, np.int32)
    ends = [0]
    for b, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row):
            stop = start + len(document)
            if stop > row_length:
                raise ValueError(
                    f"row {b}: {stop} tokens do not fit into row_length = {row_length}"
                )
            tokens[b, start:stop] = document
            positions[b, start:stop] = np.arange(len(document))
            documents[b, start:stop] = number
            ends.append(b * row_length + stop)
            start = stop
        if start < row_length:
            ends.append((b + 1) * row_length)
    return MicroBatch(
        tokens=tokens,
        inputs=tokens,
        positions=positions,
        documents=documents,
        cu_seqlens=np.array(ends, np.int32),
        masked_positions=np.zeros((count, 1), np.int32),
        masked_targets=np.zeros((count, 1), np.int32),
        masked_weights=np.zeros((count, 1), np.float32),
        masked_keys=np.zeros((count, 1), np.uint64),
    )
