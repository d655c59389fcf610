"""Several labels per text from files to a folder: the same scores in `finetune`, in `predict` and
in a pipeline of transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn import metrics

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.finetune.predict import open_predictor
from tests.support.toy_task import sentences

CLASSES = ("film", "praise")
FAST: Any = {"lr": 3e-3, "epochs": 12, "layer_decay": 1.0, "batch": 16, "max_length": 48}


def write(path: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences with the labels that their words ask for, often none."""
    rows = []
    for text, sentiment in sentences(count, seed):
        asked = {"film": "the film" in text, "praise": sentiment == "pos"}
        rows.append({"text": text, "label": [name for name in CLASSES if asked[name]]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl and dev.jsonl."""
    folder = tmp_path_factory.mktemp("several")
    write(folder / "train.jsonl", 400, seed=1)
    write(folder / "dev.jsonl", 100, seed=2)
    return folder


@pytest.fixture(scope="module")
def finetuned(encoder: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetuned") / "several"
    electra_dist.finetune_model(
        encoder,
        files / "train.jsonl",
        out,
        dev=files / "dev.jsonl",
        task="multi-label",
        device="cpu",
        **FAST,
    )
    return out


def marker(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "electra_dist.json").read_text())
    return content


def test_it_learns_and_all_three_ways_give_the_same_scores(
    finetuned: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = marker(finetuned)["scores"]
    assert trained["median"]["micro_f1"] > 0.9
    assert trained["simple"]["micro_f1"] < 0.7
    predicted = electra_dist.predict(finetuned, file=files / "dev.jsonl", device="cpu")
    assert predicted.scores == pytest.approx(trained["median"], abs=1e-6)
    rows = [json.loads(line) for line in (files / "dev.jsonl").read_text().splitlines()]
    classify = transformers.pipeline(
        "text-classification", model=str(finetuned), top_k=None, device="cpu"
    )
    found = classify([row["text"] for row in rows])
    probabilities = np.zeros((len(rows), len(CLASSES)))
    for row, answer in enumerate(found):
        for one in answer:
            probabilities[row, CLASSES.index(one["label"])] = one["score"]
    ours = [list(item["probabilities"].values()) for item in predicted.items]
    np.testing.assert_allclose(ours, probabilities, atol=1e-5)
    targets = np.array([[name in row["label"] for name in CLASSES] for row in rows]).astype(int)
    chosen = (probabilities > 0.5).astype(int)
    assert predicted.scores == pytest.approx(
        {
            "micro_f1": metrics.f1_score(targets, chosen, average="micro"),
            "macro_f1": metrics.f1_score(targets, chosen, average="macro"),
            "exact_match": metrics.accuracy_score(targets, chosen),
            "macro_average_precision": metrics.average_precision_score(
                targets, probabilities, average="macro"
            ),
        },
        abs=1e-5,
    )


def test_the_loss_is_the_binary_cross_entropy_of_each_class(finetuned: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(finetuned)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(finetuned).eval()
    assert model.config.problem_type == "multi_label_classification"
    assert tuple(model.config.id2label.values()) == CLASSES
    inputs = tokenizer("the film is wise and long", return_tensors="pt")
    labels = torch.tensor([[0.0, 1.0]])
    with torch.no_grad():
        output = model(**inputs, labels=labels)
    p = torch.sigmoid(output.logits.double())
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_command_prints_counts_tables_and_json(
    encoder: Path, finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tmp_path / "train.csv"
    train.write_text(
        "text,label\nwise and long,praise|long\ndull,blame\nhere,\nwise,praise\n", encoding="utf-8"
    )
    dev = tmp_path / "dev.csv"
    dev.write_text("text,label\nwise,praise\nhere,\n", encoding="utf-8")
    words = ["finetune", str(encoder), "--task", "multi-label", "--train", str(train)]
    words += ["--dev", str(dev), "--epochs", "1", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert (
        f"{train}: 3 classes: blame (1), long (1), praise (2); 1.00 per example, none for 1"
        in printed.out
    )
    assert f"{dev}: has no example of 'blame', 'long'" in printed.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "| micro_f1 |" in card
    texts = tmp_path / "texts.txt"
    texts.write_text("the film is wise and this class is long\n\n", encoding="utf-8")
    assert cli.main(["predict", str(finetuned), "--input", str(texts), "--device", "cpu"]) == 0
    header, first, second = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == ["predicted", "probability", "text"]
    assert second[2] == ""
    words = ["predict", str(finetuned), "--input", str(texts), "--device", "cpu", "--json"]
    assert cli.main(words) == 0
    content = json.loads(capsys.readouterr().out.splitlines()[0])
    assert tuple(content["probabilities"]) == CLASSES
    predicted = [name for name in CLASSES if content["probabilities"][name] > 0.5]
    assert predicted
    assert content["predicted"] == predicted
    assert first[0] == "|".join(predicted)
    shown = [f"{content['probabilities'][name]:.4f}" for name in predicted]
    assert first[1] == "|".join(shown)


def test_what_nobody_has_labelled_is_left_out_of_the_scores(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "half.csv"
    file.write_text(
        "text,label\nthis class is wise and this class is long,praise\ndull,nan\ndull,-1\n",
        encoding="utf-8",
    )
    found = electra_dist.predict(finetuned, file=file, device="cpu")
    assert len(found.items) == 3
    assert found.scores["exact_match"] == (found.items[0]["predicted"] == ["praise"])
    assert "2 of 3 examples have no label" in capsys.readouterr().err


def test_an_unknown_label_of_the_held_out_file_is_refused_with_its_line(
    encoder: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = tmp_path / "dev.jsonl"
    dev.write_text('{"text": "a", "label": []}\n{"text": "b", "label": ["film", "odd"]}\n')
    words = ["finetune", str(encoder), "--task", "multi-label", "--dev", str(dev)]
    words += ["--train", str(files / "train.jsonl"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert f"{dev}, line 2: label 'odd'; the training data has only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_item_for_a_server_and_an_ensemble(finetuned: Path) -> None:
    predictor: Any = open_predictor(finetuned, torch.device("cpu"))
    items = [
        predictor.item({"text": text}, "request")
        for text in ("the film is dull", "the module is wise")
    ]
    outputs = predictor.outputs(items)
    other = [(logits - 3,) for (logits,) in outputs]
    mixed = predictor.predictions(items, predictor.mixed([outputs, other]))
    parts = [predictor.predictions(items, each) for each in (outputs, other)]
    for one, *several in zip(mixed, *parts, strict=True):
        for name, value in one.content["probabilities"].items():
            mean = np.mean([each.content["probabilities"][name] for each in several])
            assert value == pytest.approx(mean, abs=1e-6)


def test_the_head_can_be_kept_for_the_same_classes(
    finetuned: Path, files: Path, tmp_path: Path
) -> None:
    recipe = {**FAST, "epochs": 0.1, "lr": 1e-9}
    options: Any = {"task": "multi-label", "device": "cpu", "keep_head": True, **recipe}
    out = tmp_path / "again"
    report = electra_dist.finetune_model(
        finetuned, files / "train.jsonl", out, dev=files / "dev.jsonl", **options
    )
    before = marker(finetuned)["scores"]["median"]["micro_f1"]
    assert report.median["micro_f1"] == pytest.approx(before, abs=0.01)
    two = tmp_path / "two.csv"
    two.write_text("text,label\na,film\nb,odd\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"`keep_head`: .*'film', 'praise', but .*'film', 'odd'"):
        electra_dist.finetune_model(finetuned, two, tmp_path / "other", **options)


def test_a_marker_that_was_damaged_is_refused(finetuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finetuned, folder)
    content = marker(folder)
    for name, value in (("clean", ["odd"]), ("clean", 3), ("labels", None), ("labels", ["a"])):
        (folder / "electra_dist.json").write_text(json.dumps(content | {name: value}))
        with pytest.raises(UserError, match=r"electra_dist.json: "):
            electra_dist.predict(folder, ["a text"], device="cpu")
