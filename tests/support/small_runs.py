"""Run directories as training leaves them, without a training, and with what a test wants."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from electra_dist.runs.directory import RunDir

TOKENIZER = "a" * 64
DATASET = "d" * 64
STEP_SECONDS = 0.5
TOKENS_A_STEP = 500


def training_row(step: int, **others: Any) -> dict[str, Any]:
    """A row whose losses fall with the step."""
    return {
        "step": step,
        "loss/generator": 6 + 2 * math.exp(-step / 50),
        "loss/discriminator": 0.4 + 0.3 * math.exp(-step / 30),
        "discriminator/auc": 0.9 - 0.4 * math.exp(-step / 60),
        "generator/accuracy": step / 1000,
        "optim/lr": 1e-3 * (1 - step / 40_000),
        "speed/real_tokens_per_s": 1000.0 + step % 7,
        "speed/step_seconds": STEP_SECONDS,
        "data/real_tokens": TOKENS_A_STEP * step,
        "data/epoch": step / 1000,
    } | others


def held_out_row(step: int, loss: float) -> dict[str, Any]:
    """A row of a validation."""
    return {
        "step": step,
        "validation/loss/generator": loss,
        "validation/loss/discriminator": 0.5,
        "validation/discriminator/auc": 0.7,
    }


def rows_of(steps: int, every: int, **others: Any) -> list[dict[str, Any]]:
    """Rows of training, and a validation at step 0 and at the end."""
    trained = [training_row(step, **others) for step in range(every, steps + 1, every)]
    return [held_out_row(0, 90.0), *trained, held_out_row(steps, 6.1)]


def write_run(
    folder: Path,
    rows: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> RunDir:
    """A run of 100 steps in `folder`; `config` and `facts` replace sections and keys."""
    content = {
        "data": {"shards": "not-here"},
        "model": {"preset": "tiny"},
        "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
        "optim": {"warmup_steps": 0},
        "run": {"name": "run"},
    } | dict(config or {})
    start = {"world_size": 2, "time": "2030-01-01T00:00:00Z", "host": "h", "electra-dist": "0.1.0"}
    known = {
        "wandb_id": "ab12",
        "dataset_fingerprint": DATASET,
        "starts": [start],
        "about": {
            "parameters": 1_234_567,
            "vocab_size": 8192,
            "tokenizer": TOKENIZER,
            "corpus_tokens": 1_000_000,
            "unigram_entropy": 6.5,
        },
    } | dict(facts or {})
    folder.mkdir(parents=True, exist_ok=True)
    run = RunDir(folder)
    run.config.write_text(yaml.safe_dump(content), encoding="utf-8")
    run.facts.write_text(json.dumps(known), encoding="utf-8")
    lines = [json.dumps(row) for row in rows]
    run.metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return run


def write_passages(run: RunDir, step: int, word: str) -> None:
    """A file of passages with one of each kind of piece."""
    pieces = [
        {"text": "The", "original": None, "sampled": None, "replaced": False}
        | {"generator_probability": None, "discriminator_probability": 0.1},
        {"text": f" {word}", "original": " rain", "sampled": f" {word}", "replaced": True}
        | {"generator_probability": 0.25, "discriminator_probability": 0.75},
        {"text": " falls", "original": " falls", "sampled": " falls", "replaced": False}
        | {"generator_probability": 0.5, "discriminator_probability": 0.2},
    ]
    folder = run.path / "samples"
    folder.mkdir(exist_ok=True)
    content = {"step": step, "passages": [{"source": "data", "pieces": pieces}]}
    (folder / f"step-{step:08d}.json").write_text(json.dumps(content), encoding="utf-8")
