"""Searches of a fine-tuning and of a pre-training, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from electra_dist.cli import main as cli
from tests.support.toy_task import random_model, sentences, write_table

OPTIONS = ["--layer-decay", "1", "--max-length", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def material(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """encoder/, train.tsv and dev.tsv."""
    folder = tmp_path_factory.mktemp("material")
    random_model(folder / "encoder", "ElectraForPreTraining", tiny_shards.parent / "tokenizer")
    write_table(folder / "train.tsv", sentences(64, seed=1))
    write_table(folder / "dev.tsv", sentences(32, seed=2))
    return folder


def words(material: Path, out: Path, *more: str) -> list[str]:
    files = ["--train", str(material / "train.tsv"), "--dev", str(material / "dev.tsv")]
    command = ["search", "finetune", str(material / "encoder"), *files, "--out", str(out)]
    return [*command, *OPTIONS, *more]


def test_the_model_of_the_best_trial_is_kept(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    varied = ["--vary", "lr=1e-5..1e-2:log", "epochs=1..2", "--trials", "3"]
    assert cli.main(words(material, out, *varied, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metric"] == "accuracy"
    assert len(report["trials"]) == 3
    best = report["best"]
    assert best["value"] == max(one["value"] for one in report["trials"] if one["value"])
    marker = json.loads((out / "best/electra_dist.json").read_text())
    assert marker["recipe"]["lr"] == best["values"]["lr"]
    transformers.AutoModelForSequenceClassification.from_pretrained(out / "best")
    assert not list((out / "trials").glob("*"))
    assert "step" in (out / "logs/0000.log").read_text()
    assert cli.main(["search", "show", str(out)]) == 0
    assert f"best: trial {best['number']}" in capsys.readouterr().out
    assert (out / "history.png").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--vary", "rate=1..2"], "rate=1..2: no number of a fine-tuning"),
        (["--vary", "lr=1..2", "--lr", "1e-4"], "is varied and given as 0.0001"),
        (["--vary", "lr=1e-4,1e-3", "--trials", "0"], "--trials 0"),
        (["--vary", "lr=1e-4,1e-3", "--metric", "bleu", "--trials", "1"], "bleu"),
        (["--vary", "lr=2..3", "--trials", "1"], "expected above 0 and up to 1"),
    ],
)
def test_mistakes_are_told_in_one_line(
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert cli.main(words(material, tmp_path / "study", *more, "--epochs", "0.1")) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_runs_of_a_pretraining(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"run: {{dir: {tmp_path}/runs, name: tiny}}\n"
        f"data: {{shards: '{tiny_shards}', row_length: 64}}\n"
        "model: {preset: tiny, max_positions: 64}\n"
        "train: {steps: 4, global_rows: 4, micro_rows: 4, device: cpu}\n"
        "optim: {warmup_steps: 1}\nprecision: {mode: fp32}\n"
        "checkpoint: {every: 4}\nvalidation: {every: 2, rows: 8}\n"
        "tracking: {every: 1, wandb: disabled}\n"
    )
    out = tmp_path / "study"
    command = ["search", "train", str(config), "--out", str(out), "--trials", "2"]
    assert cli.main([*command, "--vary", "optim.lr=1e-4..1e-2:log", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["direction"] == "minimize"
    for number, trial in enumerate(report["trials"]):
        run = tmp_path / f"runs/tiny-t{number:04d}"
        assert f"lr: {trial['values']['optim.lr']}" in (run / "config.yaml").read_text()
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = [row[report["metric"]] for row in rows if report["metric"] in row]
        assert trial["value"] == pytest.approx(min(losses))
    assert cli.main([*command, "--vary", "optim.rate=1..2"]) == 2
    assert "optim.rate" in capsys.readouterr().err
