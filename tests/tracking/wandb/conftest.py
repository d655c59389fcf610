"""A run directory with nothing trained yet, and what W&B has of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from electra_dist.runs.directory import RunDir
from electra_dist.tracking import sinks


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no setting of W&B but those of the test;
    and a busy machine is no reason to give W&B up.
    """
    monkeypatch.setattr(sinks, "FINISH_SECONDS", 400.0)
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def new_run(tmp_path: Path) -> RunDir:
    path = tmp_path / "runs" / "r"
    path.mkdir(parents=True)
    content = {
        "data": {"shards": "s"},
        "model": {"preset": "tiny"},
        "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
        "optim": {"warmup_steps": 0},
        "tracking": {"tags": ["a-tag"]},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(content))
    facts = {"name": "r", "wandb_id": "abcd1234", "dataset_fingerprint": "f", "starts": []}
    (path / "run.json").write_text(json.dumps(facts))
    return RunDir(path)
