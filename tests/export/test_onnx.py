"""The graphs of a model folder compute what transformers does, or they are not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.export.folder import add_onnx
from electra_dist.export.onnx import add as onnx
from electra_dist.export.onnx.check import check_graph
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.own_files import foreign_files
from electra_dist.finetune.runners.onnx_runner import Graph, OnnxRunner
from tests.support.toy_task import random_model

LONGEST = 96


@pytest.fixture(scope="module")
def model(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with random weights, as a fine-tuning leaves it."""
    folder = tmp_path_factory.mktemp("model") / "classifier"
    tokenizer = tiny_shards.parent / "tokenizer"
    random_model(folder, "ElectraForSequenceClassification", tokenizer)
    (folder / "electra_dist.json").write_text(json.dumps({"task": "classification"}))
    (folder / "README.md").write_text("# A classifier\n\n## Scores\n\nNone.\n")
    return folder


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with both graphs."""
    out = tmp_path_factory.mktemp("exported") / "copy"
    assert cli.main(["export", str(model), "--onnx", "--int8", "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """One that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def marker(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "electra_dist.json").read_text())
    return content


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, LONGEST), (3, 2), (7, 31)])
def test_the_graph_computes_what_transformers_does_on_any_shape(
    exported: Path, rows: int, length: int
) -> None:
    rng = torch.Generator().manual_seed(rows * length)
    ids = torch.randint(5, 500, (rows, length), generator=rng)
    mask = torch.ones_like(ids)
    mask[-1, (length + 1) // 2 :] = 0
    segments = torch.randint(0, 2, (rows, length), generator=rng)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    network = transformers.AutoModelForSequenceClassification.from_pretrained(exported).eval()
    with torch.no_grad():
        expected = network(**given).logits.numpy()
    session = onnxruntime.InferenceSession(exported / "onnx/model.onnx")
    (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    quantized = onnxruntime.InferenceSession(exported / "onnx/model_quantized.onnx")
    (near,) = quantized.run(None, {name: value.numpy() for name, value in given.items()})
    assert 0 < np.abs(near - expected).max() < 0.1


def test_the_marker_and_the_card_say_what_was_compared(model: Path, exported: Path) -> None:
    told = marker(exported)
    assert told["task"] == "classification"
    assert told["onnx"]["check"]["max_difference"] < 1e-5
    assert told["onnx"]["check"]["rows"] > 100
    assert told["onnx"]["int8_check"]["decisions"] == told["onnx"]["int8_check"]["rows"]
    assert foreign_files(exported, told["files"]) == []
    card = (exported / "README.md").read_text()
    assert card.startswith("# A classifier\n\n## Scores\n\nNone.\n\n## ONNX\n")
    assert "`onnx/model_quantized.onnx`" in card
    assert not (model / "onnx").exists()
    small, large = (
        (exported / "onnx" / name).stat().st_size for name in ("model_quantized.onnx", "model.onnx")
    )
    assert small < large * 2 / 3


def test_graphs_in_place_are_replaced_and_told_once(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "note.txt").write_text("mine")
    with (copy / "README.md").open("a") as card:
        card.write("\n## Thanks\n\nTo all.\n")
    assert cli.main(["export", str(copy), "--onnx", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["onnx"] == marker(copy)["onnx"]
    assert [path.name for path in (copy / "onnx").iterdir()] == ["model.onnx"]
    text = (copy / "README.md").read_text()
    assert text.count("## ONNX") == 1
    assert "## Thanks\n\nTo all.\n" in text
    assert "model_quantized" not in text
    foreign = foreign_files(copy, marker(copy)["files"])
    assert foreign == ["README.md, which was changed", "note.txt"]


def test_what_somebody_put_into_the_folder_of_the_graphs_is_never_replaced(copy: Path) -> None:
    (copy / "onnx/mine.onnx").write_text("mine")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds what no export wrote \(onnx/mine.onnx\)"):
        add_onnx(copy, None, int8=False)
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


def test_a_graph_that_computes_something_else_leaves_nothing(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = (copy / "onnx/model.onnx").read_bytes()
    monkeypatch.setattr(onnx, "write_graph", lambda network, path: path.write_bytes(graph))
    tensors = load_file(copy / "model.safetensors")
    tensors["classifier.out_proj.bias"] += torch.tensor([0.0, 0.01])
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"differ from PyTorch's by 1.00e-02, allowed 1.0e-04"):
        add_onnx(copy, tmp_path / "out", int8=False)
    assert list(tmp_path.iterdir()) == [copy]


def test_graphs_of_other_weights_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    OnnxRunner.of_folder(ModelFolder.open(copy), Graph(), pad_token_id=0)
    tensors["classifier.out_proj.bias"] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"was made of other weights than model\.safetensors"):
        OnnxRunner.of_folder(ModelFolder.open(copy), Graph(), pad_token_id=0)
    (copy / "onnx/model_quantized.onnx").unlink()
    with pytest.raises(UserError, match=r"has no onnx/model_quantized.onnx; .* --onnx --int8"):
        OnnxRunner.of_folder(ModelFolder.open(copy), Graph(int8=True), pad_token_id=0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--int8"], "--int8: is a form of an ONNX graph"),
        ([], "is the folder of a model already"),
        (["--onnx", "--step", "4"], "--step 4: chooses from a run"),
        (["--onnx", "--private"], "--private: is about the repository of --push"),
    ],
)
def test_options_that_do_not_fit_together(
    model: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(["export", str(model), *words]) == 2
    assert said in capsys.readouterr().err


# --- what is measured -----------------------------------------------------------------------------


@dataclass
class Fixed:
    """A runner with outputs that are known."""

    outputs: list[tuple[np.ndarray, ...]]

    def run_batch(self, features: Sequence[Any]) -> list[tuple[np.ndarray, ...]]:
        return [self.outputs.pop(0) for _ in features]


def test_decisions_are_counted_as_by_hand() -> None:
    rows = [{"input_ids": [2, 7, 3]}, {"input_ids": [2, 3]}]
    ours = [(np.array([0.5, -1.0, 2.0]),), (np.array([-3.0, 0.25]),)]
    theirs = [(np.array([0.5, 0.5, 2.0]),), (np.array([-3.0, 0.0]),)]
    signs = check_graph(Fixed(list(theirs)), [rows], ours, "a text", by_sign=True)
    assert (signs.decisions, signs.agreement) == (5, 3 / 5)
    assert (signs.max_difference, signs.largest) == (1.5, 3.0)
    places = check_graph(Fixed(list(theirs)), [[rows[0]], [rows[1]]], ours, "a text", by_sign=False)
    assert (places.decisions, places.agreement) == (2, 1.0)
    assert (places.batches, places.rows, places.tokens, places.values) == (2, 2, 5, 5)
    number = [(np.array([0.5]),)]
    regression = check_graph(Fixed([(np.array([0.75]),)]), [rows[:1]], number, "", by_sign=False)
    assert (regression.decisions, regression.agreement) == (0, None)
    broken = check_graph(Fixed([(np.array([np.nan]),)]), [rows[:1]], number, "", by_sign=False)
    assert not broken.max_difference <= broken.tolerance
    with pytest.raises(UserError, match=r"outputs of shapes \[\(2,\)\], PyTorch \[\(1,\)\]"):
        check_graph(Fixed([(np.zeros(2),)]), [rows[:1]], number, "", by_sign=False)
