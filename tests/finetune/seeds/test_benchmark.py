"""The benchmark of the strategies prints a row for each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_it_prints_every_strategy_with_the_seeds_together(
    encoder: Path, labelled: Path, repo_root: Path, tmp_path: Path
) -> None:
    files = ["--train", str(labelled / "train.tsv"), "--dev", str(labelled / "dev.tsv")]
    small = ["--examples", "48", "--held-out", "20", "--epochs", "0.5", "--seeds", "2"]
    only = ["--only", "freeze embeddings", "one head for all seeds"]
    command = [sys.executable, "benchmarks/finetune_strategies.py", "--model", str(encoder)]
    done = subprocess.run(
        [*command, *files, *small, *only, "--json", str(tmp_path / "out.json")],
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    names = [row["what"] for row in rows]
    assert names == [*only[1:], "ensemble", "greedy soup", "uniform soup"]
    assert all(row["min"] <= row["median"] <= row["max"] for row in rows)
    assert all(name in done.stdout for name in names)
