"""Fixtures for every test: where the repository is, where real text is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from electra_dist.rundir import RunDir

REPO_ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real text and labelled data beside the checkout."""
    path = REPO_ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of real English (the topics of `pydoc`), vocabulary 512, 20% held out."""
    from pydoc_data.topics import topics

    from data_tools.build import BuildOptions, build_shards
    from data_tools.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("data")
    source = folder / "topics.jsonl"
    source.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in sorted(topics.items())))
    train_tokenizer([source], 512, folder / "tokenizer")
    options = BuildOptions(validation=0.2, block_tokens=8192)
    build_shards([source], folder / "tokenizer", folder / "shards", options)
    return folder / "shards"


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Slurm, whatever is installed here."""
    from launcher import queue

    monkeypatch.setattr(queue, "has_slurm", lambda: False)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run directory of 100 steps at step 25, with a whole checkpoint of step 10 and the rest of one of step 20."""
    content = {
        "data": {"shards": "s"},
        "model": {"preset": "tiny"},
        "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
        "optim": {"warmup_steps": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    for step in (10, 20):
        (tmp_path / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    (tmp_path / "checkpoints/step-00000010/COMPLETE").touch()
    row = {"step": 25, "loss/generator": 6.5, "loss/discriminator": 0.4, "speed/step_seconds": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + '\n{"step": 25, "validation/loss/generator": 6}\n{"st')
    return RunDir(tmp_path)
