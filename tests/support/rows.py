"""Rows of runs for the tests of health: real ones, and drawn ones of the same shape."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from electra_dist import config as configuration
from electra_dist.config import Config

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
#: Steps between two drawn rows.
EVERY = 10


def make_config(**overrides: Any) -> Config:
    """The quick start's steps and schedule; the rest is whatever it may be."""
    tree: dict[str, Any] = {
        "data": {"shards": "s", "row_length": 128},
        "model": {"preset": "tiny"},
        "train": {"steps": 2500, "global_rows": 16, "micro_rows": 8},
        "optim": {"lr": 1e-3, "warmup_steps": 100},
        "checkpoint": {"every": 100},
        "tracking": {"every": EVERY},
    }
    words = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return configuration.build(configuration.apply_overrides(tree, words))


def sample_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a real training: `healthy` or `collapsed`."""
    lines = (SAMPLES / f"{name}-rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def drawn_row(step: int) -> dict[str, Any]:
    """A row of a healthy run at `step`, with all that rules look at; the same at each call."""
    noise = random.Random(step)
    loss = 5.5 + 1.2 * 0.999**step
    row = {
        "step": step,
        "loss/generator": loss * noise.uniform(0.995, 1.005),
        "loss/discriminator": 0.36 * noise.uniform(0.98, 1.02),
        "generator/accuracy": 0.18 * noise.uniform(0.95, 1.05),
        "discriminator/precision": 0.6,
        "discriminator/recall": 0.05 * noise.uniform(0.5, 1.5),
        "discriminator/accuracy": 0.87,
        "discriminator/auc": 0.64 * noise.uniform(0.99, 1.01),
        "discriminator/replaced_fraction": 0.13,
        "optim/generator_update_ratio": 2e-3,
        "optim/discriminator_update_ratio": 2e-3,
        "optim/skipped_steps": 0,
        "speed/real_tokens_per_s": 10_000 * noise.uniform(0.9, 1.1),
        "speed/step_seconds": 0.2,
        "speed/data_wait_seconds": 0.002,
        "speed/checkpoint_stall": 0.02 if step % 100 == 0 else 0.0,
        "speed/slowest_rank": noise.randrange(8),
        "speed/rank_spread": 1.02,
        "data/padding": 0.02,
    }
    if step % 100 == 0:
        row["validation/loss/generator"] = loss * 1.01
        row["validation/loss/discriminator"] = 0.365
    return row


def drawn_rows(first: int, last: int) -> list[dict[str, Any]]:
    """The rows of a healthy run from step `first` to `last`."""
    return [drawn_row(step) for step in range(first, last + 1, EVERY)]
