"""Training on two sources: the same losses on any number of ranks, losses and epochs by source, and
a run that keeps its weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_tools.build import BuildOptions, build_shards
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import is_event
from electra_dist.train.lines import Passes
from tests.support.corpora import mixed

CONFIG = """
data:
  sources: [{{shards: '{large}', weight: 3, name: large}}, {{shards: small, weight: 1}}]
  row_length: 64
  streams: 4
model:
  embedding_size: 32
  generator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  discriminator: {{layers: 1, hidden_size: 32, heads: 2, ffn_size: 64}}
  max_positions: 64
train: {{steps: 12, global_rows: 12, micro_rows: 2, device: cpu}}
optim: {{lr: 1e-3, warmup_steps: 2}}
zero: {{persistence_threshold: 0}}
precision: {{mode: fp32}}
checkpoint: {{every: 6}}
validation: {{every: 12, rows: 16}}
tracking: {{every: 1, wandb: disabled}}
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Path:
    """A folder with config.yaml; the small source has few tokens, so that it soon begins again."""
    folder = tmp_path_factory.mktemp("mixing")
    text = (tiny_shards.parent / "topics.jsonl").read_text(encoding="utf-8")
    (folder / "small.jsonl").write_text("".join(text.splitlines(keepends=True)[:12]))
    options = BuildOptions(validation=0.2, block_tokens=512)
    build_shards(
        [folder / "small.jsonl"], tiny_shards.parent / "tokenizer", folder / "small", options
    )
    (folder / "config.yaml").write_text(CONFIG.format(large=tiny_shards))
    return folder


def command(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "electra_dist.cli", *words]
    return subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def alone(workplace: Path) -> RunDir:
    """Trained by one rank."""
    done = command(workplace, "train", "config.yaml", "run.name=alone")
    assert done.returncode == 0, done.stderr
    assert "mixed data: large 75.0%, small 25.0%" in done.stdout + done.stderr
    return RunDir(workplace / "runs/alone")


def losses(run: RunDir) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if "loss/" in key or key.startswith("data/")}
        for row in run.read_metrics()
        if not is_event(row)
    ]


def test_three_ranks_share_four_streams_and_have_the_losses_of_one(
    workplace: Path, alone: RunDir
) -> None:
    words = ("launch", "local", "config.yaml", "--processes", "3", "run.name=three")
    done = command(workplace, *words)
    assert done.returncode == 0, done.stderr
    # 12 rows on 3 ranks of up to 6
    assert "33.3% of the rows of a step are empty: 3 ranks" in done.stdout + done.stderr
    rows = losses(RunDir(workplace / "runs/three"))
    expected = losses(alone)
    assert len(rows) == len(expected) > 0
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=2e-4, abs=1e-6)


def test_losses_and_epochs_are_there_by_source(alone: RunDir) -> None:
    last = losses(alone)[-1]
    for loss in ("loss/generator", "loss/discriminator"):
        whole, large, small = (
            last[f"validation/{name}{loss}"] for name in ("", "large/", "small/")
        )
        # a mean over tokens of both
        assert min(large, small) <= whole <= max(large, small)
        assert large != small
    assert last["data/epoch/small"] > 2 * last["data/epoch/large"] > 0
    assert last["data/epoch/large"] < last["data/epoch"] < last["data/epoch/small"]


def test_what_opens_the_data_of_a_run_knows_of_sources(workplace: Path, alone: RunDir) -> None:
    evaluated = command(workplace, "evaluate", "runs/alone", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads(evaluated.stdout)
    assert found["own_shards"]
    last = losses(alone)[-1]
    logged = {name: value for name, value in last.items() if name.startswith("validation/")}
    assert len(logged) == 6
    for name, value in logged.items():
        assert found["metrics"][name] == pytest.approx(value, abs=1e-5), name
    planned = command(workplace, "plan", "config.yaml", "--gpu", "cpu", "--gpus-per-node", "3")
    assert planned.returncode == 0, planned.stderr
    assert "of the rows of a step are empty: 3 ranks" in planned.stdout
    assert "no shards there yet" not in planned.stdout


def test_evaluate_has_the_losses_of_each_source(workplace: Path, alone: RunDir) -> None:
    evaluated = command(workplace, "evaluate", "runs/alone", "--json")
    found = json.loads(evaluated.stdout)
    last = losses(alone)[-1]
    assert [(source["name"], source["rows"]) for source in found["sources"]] == [
        ("large", 12),
        ("small", 4),
    ]
    for source in found["sources"]:
        for network in ("generator", "discriminator"):
            expected = last[f"validation/{source['name']}/loss/{network}"]
            assert source[network]["loss"] == pytest.approx(expected, abs=1e-5)
    masked = [source["generator"]["masked_tokens"] for source in found["sources"]]
    assert sum(masked) == found["generator"]["masked_tokens"]
    printed = command(workplace, "evaluate", "runs/alone")
    assert printed.returncode == 0, printed.stderr
    by_source = printed.stdout.partition("by source")[2]
    for source in found["sources"]:
        (row,) = (line for line in by_source.splitlines() if line[1:].startswith(source["name"]))
        cells = [cell.strip() for cell in row.split("│")]
        assert f"{source['generator']['loss']:.3f}" in cells
        assert f"{source['discriminator']['loss']:.3f}" in cells


def test_a_run_keeps_its_weights(workplace: Path, alone: RunDir) -> None:
    other = "data.sources=[{shards: small, weight: 1}, {shards: small, weight: 2, name: b}]"
    line = ("config.yaml", "run.name=alone", "train.steps=14", "--from-here", other)
    done = command(workplace, "launch", "local", "--processes", "2", *line)
    assert done.returncode != 0
    assert "not the data that runs/alone was trained on" in done.stderr
    assert "with the same weights" in done.stderr


def test_the_end_of_a_source_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    passes = Passes(mixed([[[5]], [[5]]], [1, 1]))
    for epochs in ((0.2, 0.9), (0.4, 1.1), (0.6, 1.4), (0.9, 2.2)):
        row = passes.of_sources(epochs, aloud=True)
        assert row == {"data/epoch/source-0": epochs[0], "data/epoch/source-1": epochs[1]}
    passes.begin((1.2, 2.9))  # a resume
    passes.of_sources((1.3, 3.0), aloud=True)
    passes.of_sources((2.3, 3.0), aloud=False)  # another rank
    said = [line for line in capsys.readouterr().out.splitlines() if "source-" in line]
    assert [line.split("source ")[1].split(":")[0] for line in said] == ["source-1"] * 3
    assert "epoch 4 of it begins" in said[-1]
    assert Passes(mixed([[[5]]], [1])).of_sources((1.5,), aloud=True) == {}
