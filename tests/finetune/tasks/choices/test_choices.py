"""Multiple choice from files to predictions: learnt, and the same from each way of asking."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.errors import DataError
from electra_dist.finetune.predict import open_predictor
from electra_dist.finetune.predictor import TaskPredictor
from tests.support.toy_task import BAD, GOOD, SUBJECTS

OPTIONS = ["--task", "multiple-choice", "--device", "cpu"]
FAST = ["--lr", "3e-3", "--layer-decay", "1", "--batch", "16", "--max-length", "48"]


def choices(path: Path, count: int, seed: int) -> Path:
    """From 2 to 4 choices of which one praises; the text says nothing of it."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        size = draw.randint(2, 4)
        right = draw.randrange(size)
        words = [draw.choice(GOOD if place == right else BAD) for place in range(size)]
        row = {
            "text": f"what is said of {draw.choice(SUBJECTS)}?",
            "choices": [f"it is {word}, and long" for word in words],
            "label": right,
        }
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl, dev.jsonl and out/, fine-tuned on them."""
    made = tmp_path_factory.mktemp("choices")
    train = choices(made / "train.jsonl", 200, seed=1)
    dev = choices(made / "dev.jsonl", 60, seed=2)
    files = ["--train", str(train), "--dev", str(dev), "--out", str(made / "out")]
    assert cli.main(["finetune", str(encoder), *files, *OPTIONS, *FAST, "--epochs", "3"]) == 0
    return made


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]


def test_it_learns_and_predict_and_transformers_say_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = json.loads((folder / "out" / "electra_dist.json").read_text())["scores"]
    accuracy = scores["median"]["accuracy"]
    assert accuracy > 0.9
    assert scores["simple"]["accuracy"] < 0.7
    words = ["predict", str(folder / "out"), "--input", str(folder / "dev.jsonl")]
    assert cli.main([*words, "--json", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == f"accuracy {accuracy:.4f}"
    found = [json.loads(line) for line in printed.out.splitlines()]

    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "out")
    right = 0
    for row, one in zip(rows(folder), found, strict=True):
        size = len(row["choices"])
        inputs = tokenizer([row["text"]] * size, row["choices"], padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**{name: t.unsqueeze(0) for name, t in inputs.items()}).logits[0]
        expected = logits.softmax(dim=0)
        torch.testing.assert_close(torch.tensor(one["probabilities"]), expected, atol=1e-5, rtol=0)
        assert one["predicted"] == row["choices"][int(logits.argmax())]
        assert one["index"] == int(logits.argmax())
        right += one["index"] == row["label"]
    assert right / len(found) == pytest.approx(accuracy)


def test_one_item_of_a_server_and_of_the_library(folder: Path) -> None:
    row = rows(folder)[0]
    predictor = open_predictor(folder / "out", torch.device("cpu"))
    assert predictor.fields == ("text", "choices")
    item = predictor.item({"text": row["text"], "choices": row["choices"]}, "request 1")
    (one,) = predictor.predict([item])
    asked = electra_dist.predict(
        folder / "out", [row["text"]], pairs=[row["choices"]], device="cpu"
    )
    assert asked.kind == "multiple-choice"
    assert asked.items[0]["probabilities"] == pytest.approx(one.content["probabilities"], abs=1e-6)
    with pytest.raises(DataError, match="request 1: 0 choices"):
        predictor.item({"text": row["text"]}, "request 1")
    with pytest.raises(DataError, match="request 1: 'choices' is 'one'"):
        predictor.item({"text": row["text"], "choices": "one"}, "request 1")


def test_several_models_are_mixed_by_their_probabilities(folder: Path) -> None:
    predictor = open_predictor(folder / "out", torch.device("cpu"))
    assert isinstance(predictor, TaskPredictor)
    items = predictor.read(folder / "dev.jsonl")[:5]
    outputs = predictor.outputs(items)
    other = [(logits * 0.5,) for (logits,) in outputs]
    mixed = predictor.predictions(items, predictor.mixed([outputs, other]))
    parts = [predictor.predictions(items, one) for one in (outputs, other)]
    for one, first, second in zip(mixed, *parts, strict=True):
        for number, probability in enumerate(one.content["probabilities"]):
            both = [part.content["probabilities"][number] for part in (first, second)]
            assert probability == pytest.approx(sum(both) / 2, abs=1e-5)


def test_the_head_is_new_unless_it_is_kept(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    def summary(name: str, *words: str) -> torch.Tensor:
        """The head after a training that hardly moves it."""
        out = tmp_path / name
        files = ["--train", str(folder / "dev.jsonl"), "--out", str(out)]
        how = [*OPTIONS, "--lr", "1e-9", "--epochs", "0.05", *words]
        assert cli.main(["finetune", str(folder / "out"), *files, *how]) == 0
        return load_file(out / "model.safetensors")["sequence_summary.summary.weight"]

    old = load_file(folder / "out" / "model.safetensors")["sequence_summary.summary.weight"]
    assert torch.allclose(summary("kept", "--keep-head"), old, atol=1e-5)
    new = summary("new")
    assert not torch.allclose(new, old, atol=1e-2)
    assert new.std() == pytest.approx(0.02, rel=0.2)
