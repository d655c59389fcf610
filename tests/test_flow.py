"""The whole flow on real text by the commands a user types: long documents, 16k vocabulary, two
ranks, export.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from tests.support.english import join_packages


def run(where: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "electra_dist.cli", *arguments]
    result = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizer and shards of the documentation of installed packages."""
    where = tmp_path_factory.mktemp("flow")
    run(where, "data", "corpus", "pydoc", "--out", "pydoc", "--max-bytes", "14000000")
    text = str(join_packages(where / "pydoc" / "pydoc.jsonl", where / "packages.jsonl.gz"))
    run(where, "data", "tokenizer", "--input", text, "--vocab-size", "16384", "--out", "tokenizer")
    source = ("--input", text, "--tokenizer", "tokenizer", "--out", "shards")
    run(where, "data", "build", *source, "--workers", "2", "--validation", "0.05")
    return where


def test_shards_are_whole_and_pack_within_two_and_a_half_percent(prepared: Path) -> None:
    assert json.loads(run(prepared, "data", "verify", "shards", "--json"))["ok"]
    facts = json.loads(run(prepared, "data", "inspect", "shards", "--json"))
    assert facts["vocab_size"] == 16384
    assert facts["splits"]["validation"]["documents"] > 10
    assert {row["row_length"] for row in facts["packing"]} == {128, 256, 512, 1024}
    assert all(row["padding"] <= 0.025 for row in facts["packing"])


def test_training_and_export_of_both_networks(prepared: Path, repo_root: Path) -> None:
    config = (
        "run.dir=runs",
        "run.name=flow",
        "data.shards=shards",
        "train.steps=6",
        "optim.warmup_steps=2",
    )
    small = ("checkpoint.every=3", "validation.rows=32", "tracking.every=2")
    run(
        prepared,
        "launch",
        "local",
        str(repo_root / "configs/quickstart.yaml"),
        "--processes",
        "2",
        *config,
        *small,
    )
    report = json.loads(run(prepared, "report", "runs/flow", "--json", "--plot", "curves.png"))
    assert report["step"] == 6
    assert (prepared / "curves.png").stat().st_size > 10_000
    for network, model in (
        ("discriminator", "AutoModelForPreTraining"),
        ("generator", "AutoModelForMaskedLM"),
    ):
        exported = json.loads(
            run(prepared, "export", "runs/flow", "--out", network, "--network", network, "--json")
        )
        assert exported["check"]["max_difference"] <= 1e-5

        loaded = getattr(transformers, model).from_pretrained(
            prepared / network, local_files_only=True
        )
        assert loaded.config.vocab_size == 16384
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        prepared / "generator", local_files_only=True
    )
    assert tokenizer("Return 8 [MASK]")["input_ids"][0] == tokenizer.cls_token_id
