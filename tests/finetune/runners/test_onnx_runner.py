"""`predict --onnx` says what `predict` says, whatever the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.export.folder import add_onnx
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predict import open_predictor
from electra_dist.finetune.registry import auto_class_of
from electra_dist.finetune.runners.onnx_runner import Graph, OnnxRunner
from electra_dist.finetune.runners.runner import TorchRunner
from tests.support.toy_task import questions, random_model, sentences, write_table

CPU = torch.device("cpu")
MARKERS: dict[str, dict[str, Any]] = {
    "ElectraForSequenceClassification": {
        "task": "classification",
        "labels": ["neg", "pos"],
        "columns": {"text": "text", "pair": None, "label": "label"},
        "max_length": 64,
    },
    "ElectraForQuestionAnswering": {
        "task": "question-answering",
        "max_length": 32,
        "stride": 8,
        "allow_none": False,
        "threshold": 0.0,
    },
    "ElectraForMaskedLM": {"network": "generator"},
}


@pytest.fixture(scope="module")
def models(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with graphs for each of `MARKERS`, with random weights."""
    folder = tmp_path_factory.mktemp("models")
    for kind, marker in MARKERS.items():
        random_model(folder / kind, kind, tiny_shards.parent / "tokenizer")
        (folder / kind / "electra_dist.json").write_text(json.dumps(marker))
        add_onnx(folder / kind, None, int8=kind == "ElectraForSequenceClassification")
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A file for each of `MARKERS`, of items of many lengths."""
    rows = [*sentences(37, seed=5), ("", "pos"), ("long " * 90, "neg"), ("a", "neg")]
    masks = tmp_path / "masks.txt"
    masks.write_text("The [MASK] of it.\n[MASK]\n\nThis [MASK] and that [MASK].\n")
    return {
        "ElectraForSequenceClassification": write_table(tmp_path / "rows.tsv", rows),
        "ElectraForQuestionAnswering": questions(tmp_path / "asked.jsonl", 12, seed=1),
        "ElectraForMaskedLM": masks,
    }


@pytest.mark.parametrize("kind", MARKERS)
def test_predictions_and_scores_are_those_of_torch(
    models: Path, inputs: dict[str, Path], kind: str
) -> None:
    file = inputs[kind]
    found = []
    for graph in (None, Graph(threads=1)):
        predictor = open_predictor(models / kind, CPU, graph=graph)
        predictions, scores = predictor.predict_with_scores(predictor.read(file), file)
        found.append(([one.content for one in predictions], scores))
    (theirs, their_scores), (ours, our_scores) = found
    assert len(ours) == len(theirs) >= 4
    assert our_scores == pytest.approx(their_scores)
    for one, other in zip(ours, theirs, strict=True):
        assert _rounded(one) == pytest.approx(_rounded(other), abs=1e-5)


def _rounded(content: Any, at: str = "") -> dict[str, Any]:
    """Every number and word of a JSON object by its place."""
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list):
        parts = dict(enumerate(content)).items()
    else:
        return {at: content}
    return {k: v for key, part in parts for k, v in _rounded(part, f"{at}/{key}").items()}


def test_outputs_by_token_are_cut_to_each_example_in_the_order_given(models: Path) -> None:
    folder = ModelFolder.open(models / "ElectraForQuestionAnswering")
    tokenizer = folder.tokenizer()
    rng = np.random.default_rng(3)
    features = [
        {
            "input_ids": rng.integers(5, 500, length).tolist(),
            "token_type_ids": [0] * (length // 2) + [1] * (length - length // 2),
            "start_positions": 0,
        }
        for length in (5, 90, 2, 33, 1, 33, 64)
    ] * 7
    runner = OnnxRunner.of_folder(folder, Graph(), tokenizer.pad_token_id)
    expected = TorchRunner(folder.load(auto_class_of(folder)), tokenizer, CPU)(features)
    for example, ours, theirs in zip(features, runner(features), expected, strict=True):
        assert [array.shape for array in ours] == [(len(example["input_ids"]),)] * 2
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert runner([]) == []


def test_the_command_runs_the_int8_graph(
    models: Path, inputs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "ElectraForSequenceClassification"
    command = ["predict", str(models / kind), "--input", str(inputs[kind]), "--json"]
    found = []
    for words in ([], ["--onnx", "--int8", "--threads", "2"]):
        assert cli.main([*command, *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        found.append([json.loads(line)["probabilities"]["pos"] for line in lines])
    difference = np.abs(np.array(found[0]) - np.array(found[1])).max()
    assert 0 < difference < 0.05


def test_what_cannot_be_run_is_said(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(models / "ElectraForMaskedLM")
    for words, said in (
        (["--int8"], "--int8, --threads: are about a graph"),
        (["--onnx", "--device", "cuda"], "with --onnx, the model runs on the CPU"),
        (["--onnx", "--int8"], "has no onnx/model_quantized.onnx; write it with electra-dist"),
        (["--onnx", "--threads", "0"], "--threads 0: expected 1 or more"),
    ):
        assert cli.main(["predict", model, *words]) == 2
        assert said in capsys.readouterr().err
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes((models / "ElectraForMaskedLM/onnx/model.onnx").read_bytes()[:5000])
    with pytest.raises(UserError, match="onnxruntime cannot load it"):
        OnnxRunner(damaged, 0)
