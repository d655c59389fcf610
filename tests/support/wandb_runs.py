"""Writes what training leaves in a run directory for W&B: rows of metrics, passages."""

from __future__ import annotations

import json
from pathlib import Path

from electra_dist.runs.directory import RunDir
from electra_dist.runs.rollbacks import Rollback

PIECES = [
    {
        "text": "the",
        "original": None,
        "sampled": None,
        "generator_probability": None,
        "replaced": False,
        "discriminator_probability": 0.125,
    },
    {
        "text": "dog",
        "original": "cat",
        "sampled": "dog",
        "generator_probability": 0.5,
        "replaced": True,
        "discriminator_probability": 0.75,
    },
]


def write_samples(run: RunDir, step: int, content: object = None) -> Path:
    path = run.path / "samples" / f"step-{step:08d}.json"
    path.parent.mkdir(exist_ok=True)
    if content is None:
        content = {"step": step, "passages": [{"source": "wiki", "pieces": PIECES}]}
    path.write_text(json.dumps(content))
    return path


def write_rows(run: RunDir, *steps: int) -> None:
    with run.metrics.open("a") as file:
        for step in steps:
            file.write(json.dumps({"step": step, "loss/generator": 7.0 - step}) + "\n")


def note_rollback(run: RunDir, from_step: int, to_step: int) -> None:
    """What training notes in run.json before it cuts the metrics."""
    rollback = Rollback("2026-01-01T00:00:00Z", from_step, to_step, (2, 3), "spikes", "s")
    run.update_facts(lambda facts: facts.with_rollback(rollback))
