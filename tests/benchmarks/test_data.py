"""The benchmarks of the data, in the smallest sizes, where the figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(repo_root: Path, script: str, file: Path, *words: str) -> tuple[str, Any]:
    done = subprocess.run(
        (sys.executable, f"benchmarks/{script}.py", "--json", str(file), *words),
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a goal of a quiet machine is missed
    return done.stdout, json.loads(file.read_text())


def test_shards_of_any_size_are_simulated_opened_and_planned(
    repo_root: Path, tmp_path: Path
) -> None:
    words = ("--shards", "300", "--blocks", "20", "--rounds", "1")
    out, figures = run(repo_root, "data_at_size", tmp_path / "size.json", *words)
    for version in ("version 1", "version 2"):
        assert figures[version]["shards"] == 300
        assert figures[version]["blocks"] == 6000
    assert "simulated: 300 shards, 6,000 blocks" in out
    parent = figures["parent of a build"]
    assert (parent["runs"], parent["shards"]) == (24, 300)
    assert 0 < parent["bytes"] < 50e6


def test_the_stream_is_measured_next_to_its_peer(
    repo_root: Path, tmp_path: Path, tiny_shards: Path
) -> None:
    words = ("--shards", str(tiny_shards), "--row-lengths", "32", "--rounds", "2")
    out, figures = run(
        repo_root, "data_stream", tmp_path / "stream.json", *words, "--seconds", "0.1"
    )
    (case,) = figures["cases"]
    assert case["ratio"] > 0
    assert set(case["tokens_per_cpu_second"]) >= {"electra-dist", "webdataset and numpy"}
    assert "rows of 32" in out


def test_the_cost_of_checksums_is_measured(
    repo_root: Path, tmp_path: Path, tiny_shards: Path
) -> None:
    words = ("--shards", str(tiny_shards), "--blocks", "2", "--rounds", "1", "--row-length", "32")
    _, figures = run(repo_root, "block_checksums", tmp_path / "checksums.json", *words)
    assert figures["blocks"] == 2
