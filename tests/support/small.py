"""Tiny configurations, steps and engines for the tests of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra_dist import config as configuration
from electra_dist.batch import PADDING_DOCUMENT, SPECIAL_TOKENS, MicroBatch, Step
from electra_dist.checkpoint.saving import Saver
from electra_dist.config import CheckpointConfig, Config
from electra_dist.model.flat.slots import named_slices
from electra_dist.model.networks import build_networks
from electra_dist.runs.directory import RunDir
from electra_dist.zero.engines import Engines, build_engines

SEED = 7
VOCABULARY = 200
LENGTH = 16
MASKED = 3
DOCUMENTS = 4


def make_config(*overrides: str) -> Config:
    """2 layers x 32, 8 rows of 16 tokens a step, ZeRO-3 with nothing kept whole, fp32."""
    tree: dict[str, Any] = {
        "data": {"shards": "unused", "row_length": LENGTH, "streams": 4},
        "model": {
            "preset": "tiny",
            "embedding_size": 16,
            "max_positions": LENGTH,
            "initializer_range": 0.1,
            "generator": {"layers": 1, "hidden_size": 16, "heads": 2, "ffn_size": 32},
            "discriminator": {"layers": 2, "hidden_size": 32, "heads": 2, "ffn_size": 64},
        },
        "train": {"steps": 20, "global_rows": 8, "micro_rows": 2, "device": "cpu"},
        "optim": {"lr": 1e-3, "warmup_steps": 0, "weight_decay": 0.1, "clip_norm": 1.0},
        "zero": {"stage": 3, "persistence_threshold": 0},
        "precision": {"mode": "fp32"},
    }
    return configuration.build(configuration.apply_overrides(tree, overrides))


def make_row(seed: int) -> dict[str, np.ndarray]:
    """One row of two documents and some padding, with one to three masked positions."""
    rng = np.random.default_rng(seed)
    real = int(rng.integers(LENGTH - 4, LENGTH + 1))
    cut = int(rng.integers(5, real - 4))
    tokens = np.full(LENGTH, SPECIAL_TOKENS.pad, np.int32)
    positions = np.zeros(LENGTH, np.int32)
    documents = np.full(LENGTH, PADDING_DOCUMENT, np.int32)
    for number, (start, stop) in enumerate(((0, cut), (cut, real))):
        tokens[start:stop] = rng.integers(5, VOCABULARY, stop - start)
        tokens[start], tokens[stop - 1] = SPECIAL_TOKENS.cls, SPECIAL_TOKENS.sep
        positions[start:stop] = np.arange(stop - start)
        documents[start:stop] = number
    inner = [i for i in range(real) if tokens[i] >= 5]
    count = int(rng.integers(1, MASKED + 1))
    chosen = np.sort(rng.choice(inner, count, replace=False))
    inputs = tokens.copy()
    inputs[chosen] = SPECIAL_TOKENS.mask
    masked = np.zeros(MASKED, np.int32)
    masked[:count] = chosen
    weights = (np.arange(MASKED) < count).astype(np.float32)
    ends = [0, cut, real, LENGTH]
    return {
        "tokens": tokens,
        "inputs": inputs,
        "positions": positions,
        "documents": documents,
        "cu_seqlens": np.array(ends + [LENGTH] * (DOCUMENTS + 2 - len(ends)), np.int32),
        "masked_positions": masked,
        "masked_targets": np.where(weights > 0, tokens[masked], 0).astype(np.int32),
        "masked_weights": weights,
        "masked_keys": rng.integers(0, 2**63, MASKED).astype(np.uint64),
        "samples": rng.integers(5, VOCABULARY, MASKED).astype(np.int64),
    }


def make_micro_batch(rows: list[int]) -> tuple[MicroBatch, Tensor]:
    """The rows of these seeds and their forced samples."""
    made = [make_row(seed) for seed in rows]
    arrays = {
        name: np.stack([row[name] for row in made])
        for name in made[0]
        if name not in ("cu_seqlens", "samples")
    }
    ends = [row["cu_seqlens"][1:] + b * LENGTH for b, row in enumerate(made)]
    arrays["cu_seqlens"] = np.concatenate([[0], *ends]).astype(np.int32)
    return MicroBatch(**arrays), torch.from_numpy(np.stack([row["samples"] for row in made]))


def make_step(config: Config, index: int, rank: int, world_size: int) -> tuple[Step, list[Tensor]]:
    """Step `index` as rank `rank` of `world_size` gets it:
    the same global rows, whatever the world size.
    """
    rows = [
        index * config.train.global_rows + r
        for r in range(config.train.global_rows)
        if r % world_size == rank
    ]
    micro = config.train.micro_rows
    made = [make_micro_batch(rows[i : i + micro]) for i in range(0, len(rows), micro)]
    batches = tuple(batch for batch, _ in made)
    masked = sum(int(batch.masked_weights.sum()) for batch in batches)
    real = sum(int((batch.documents != PADDING_DOCUMENT).sum()) for batch in batches)
    return Step(index, 0.0, batches, masked, real), [samples for _, samples in made]


def make_engines(config: Config, world: Any) -> Engines:
    from deepspeed.accelerator import get_accelerator

    # PyTorch computes in it on any CPU; DeepSpeed asks for more
    get_accelerator().is_fp16_supported = lambda: True
    return build_engines(config, *build_networks(config, VOCABULARY, "cpu", SEED), world)


def save_checkpoint(
    run: RunDir, step: int, engines: Engines, state: dict[str, Any], world: Any, keep: int
) -> None:
    """A checkpoint of `step`, on the disk when this returns."""
    Saver(run, engines, world, CheckpointConfig(keep=keep)).save(step, state, final=True)


def full_parameters(engines: Engines) -> dict[str, torch.Tensor]:
    """fp32 parameters of both networks, by DeepSpeed's own means."""
    from deepspeed.utils import safe_get_full_fp32_param

    def whole(engine: Any, parameter: torch.nn.Parameter) -> torch.Tensor:
        if engine.zero_optimization_stage() == 0:
            return parameter.detach()
        found: torch.Tensor = safe_get_full_fp32_param(parameter)
        return found

    return by_name(engines, whole)


def by_name(
    engines: Engines, whole: Callable[[Any, torch.nn.Parameter], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """`network/name`: copies of what `whole` gives for every parameter,
    cut where several lie in one.
    """
    found = {}
    for network, engine in engines:
        wholes = {p: whole(engine, p).flatten() for p in engine.module.parameters()}
        for piece in named_slices(engine.module):
            part = wholes[piece.held].narrow(0, piece.start, math.prod(piece.shape))
            found[f"{network}/{piece.name}"] = part.view(piece.shape).clone()
    return found
