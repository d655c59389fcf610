"""A trained run for all evaluations."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from electra_dist.runs.directory import RunDir

ROWS = 11  # not a multiple of the micro-batch: its last row is empty


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> RunDir:
    """A very small run of 8 steps in fp32, validated and saved at steps 4 and 8; rows and samples
    are made otherwise than by default.
    """
    where = tmp_path_factory.mktemp("evaluate")
    (where / "config.yaml").write_text(
        f"run: {{dir: {where}/runs, name: r}}\n"
        f"data: {{shards: '{tiny_shards}', row_length: 64, streams: 4, mask_fraction: 0.2}}\n"
        "model:\n  embedding_size: 32\n  max_positions: 64\n  initializer_range: 0.2\n"
        "  temperature: 0.9\n"
        "  generator: {layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}\n"
        "  discriminator: {layers: 1, hidden_size: 32, heads: 2, ffn_size: 64}\n"
        "train: {steps: 8, global_rows: 8, micro_rows: 4, seed: 77, compile: false, device: cpu}\n"
        "optim: {lr: 5e-3, warmup_steps: 1}\nprecision: {mode: fp32}\n"
        f"checkpoint: {{every: 4}}\nvalidation: {{every: 4, rows: {ROWS}}}\n"
        "tracking: {every: 4, wandb: disabled}\n"
    )
    command = [sys.executable, "-m", "electra_dist.cli", "train", str(where / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return RunDir(where / "runs/r")


@pytest.fixture
def copied(trained: RunDir, tmp_path: Path) -> RunDir:
    """A copy of the run, to be damaged."""
    shutil.copytree(trained.path, tmp_path / "r")
    return RunDir(tmp_path / "r")
