"""Fixtures of the model tests: small configurations, batches with masks,
weights where nothing is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from electra_dist import config as configuration
from electra_dist.batch import PADDING_DOCUMENT, SPECIAL_TOKENS
from electra_dist.config import Config
from electra_dist.model.inputs import ModelBatch, rows_of_documents, to_device

VOCABULARY = 1009


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """`make_config("tiny", embedding_sharing="none", ...)`: keys of the section `model`."""

    def make(preset: str = "tiny", row_length: int = 64, **model: Any) -> Config:
        return configuration.build(
            {
                "data": {"shards": "nowhere", "row_length": row_length},
                "model": {"preset": preset, **model},
                "train": {"steps": 20_000, "global_rows": 8, "micro_rows": 8},
                "precision": {"mode": "fp32"},
            }
        )

    return make


@pytest.fixture(scope="session")
def perturb() -> Callable[[nn.Module, int], None]:
    """Adds noise to every parameter, so that no bias is 0,
    no LayerNorm weight is 1 and no delta is 0.
    """

    @torch.no_grad()
    def add_noise(network: nn.Module, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        for name, parameter in network.named_parameters():
            scale = 0.1 if name.endswith("bias") or "norm" in name else 0.02
            parameter.add_(torch.randn(parameter.shape, generator=rng) * scale)

    return add_noise


@pytest.fixture(scope="session")
def make_documents() -> Callable[..., list[list[int]]]:
    """`make_documents([5, 9], seed)`: documents of these lengths, [CLS] and [SEP] included."""

    def make(lengths: list[int], seed: int = 0, vocabulary: int = VOCABULARY) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [
            [SPECIAL_TOKENS.cls, *rng.integers(5, vocabulary, n - 2).tolist(), SPECIAL_TOKENS.sep]
            for n in lengths
        ]

    return make


@pytest.fixture(scope="session")
def make_batch(make_documents: Callable[..., list[list[int]]]) -> Callable[..., ModelBatch]:
    """A masked batch of packed documents: row lengths given,
    `slots` masked slots a row, the last one unused.
    """

    def make(
        rows: tuple[tuple[int, ...], ...] = ((20, 11), (32,)), row_length: int = 32, slots: int = 6
    ) -> ModelBatch:
        packed = [make_documents(list(lengths), seed) for seed, lengths in enumerate(rows)]
        batch = to_device(rows_of_documents(packed, row_length, SPECIAL_TOKENS.pad), "cpu")
        rng = np.random.default_rng(7)
        used = slots - 1
        positions = torch.zeros(len(rows), slots, dtype=torch.int64)
        for b in range(len(rows)):
            special = [SPECIAL_TOKENS.cls, SPECIAL_TOKENS.sep]
            maskable = [
                i
                for i in range(row_length)
                if batch.documents[b, i] != PADDING_DOCUMENT
                and int(batch.tokens[b, i]) not in special
            ]
            positions[b, :used] = torch.tensor(
                sorted(rng.choice(maskable, used, replace=False).tolist())
            )
        weights = torch.ones(len(rows), slots)
        weights[:, used:] = 0
        targets = batch.tokens.gather(1, positions) * weights.long()
        inputs = batch.inputs.clone()
        for b in range(len(rows)):
            # the last used slot is shown unchanged
            inputs[b, positions[b, : used - 1]] = SPECIAL_TOKENS.mask
        return batch._replace(
            inputs=inputs,
            masked_positions=positions,
            masked_targets=targets,
            masked_weights=weights,
            masked_keys=torch.arange(1, len(rows) * slots + 1).view(len(rows), slots)
            * 0x9E3779B97F4A7C1
            - 2**60,
        )

    return make
