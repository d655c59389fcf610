"""Question answering from files to predicted answers, with and without questions that have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from electra_dist.cli import main as cli
from electra_dist.errors import DataError
from electra_dist.finetune.tasks.questions.learner import WindowFeatures
from electra_dist.finetune.tasks.questions.reading import read_questions
from electra_dist.finetune.tasks.questions.squad_scores import squad_scores
from electra_dist.finetune.tasks.questions.windows import make_windows
from tests.support.toy_task import questions

OPTIONS = [
    "--lr",
    "3e-3",
    "--layer-decay",
    "1",
    "--batch",
    "16",
    "--max-length",
    "48",
    "--stride",
    "8",
]
OPTIONS += ["--device", "cpu"]


@pytest.mark.parametrize("with_none", [False, True], ids=["all-answered", "some-have-none"])
def test_it_learns_to_answer_and_predict_says_the_same(
    encoder: Path, tmp_path: Path, with_none: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    train = questions(tmp_path / "train.jsonl", 600, 1, with_none)
    dev = questions(tmp_path / "dev.jsonl", 60, 2, with_none)
    out, task = tmp_path / "out", ["--task", "question-answering", "--epochs", "9"]
    files = ["--train", str(train), "--dev", str(dev), "--out", str(out)]
    assert cli.main(["finetune", str(encoder), *files, *task, *OPTIONS, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    scores = report["median"]
    assert scores["f1"] > 0.85
    assert with_none == ("no_answer_accuracy" in scores) == ("f1" in report["simple"])
    assert cli.main(["predict", str(out), "--input", str(dev), "--json", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    asked = read_questions(dev, labelled=True)
    again = squad_scores({one["id"]: one["answer"] for one in found}, asked)
    assert again == pytest.approx(
        {name: value for name, value in scores.items() if name != "threshold"}
    )
    assert f"f1 {scores['f1']:.4f}" in printed.err
    for one, question in zip(found, asked, strict=True):
        assert question.context[one["start"] : one["end"]] == one["answer"]
    assert any(one["answer"] == "" for one in found) == with_none
    assert cli.main(["predict", str(out), "--device", "cpu"]) == 2
    assert "--input: missing" in capsys.readouterr().err


def test_features_are_those_of_the_windows(encoder: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    asked = read_questions(questions(tmp_path / "q.jsonl", 5, 3), labelled=True)
    windows = make_windows(asked, tokenizer, 32, 4)
    features = WindowFeatures(windows)
    assert len(features) == len(windows) > 5
    assert [one["input_ids"] for one in features[1:3]] == [
        ids.tolist() for ids in windows.input_ids[1:3]
    ]
    assert [one["end_positions"] for one in features] == windows.end.tolist()


def test_questions_without_labels_are_not_trained_on(encoder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"question": "who?", "context": "It was Anna."}\n', encoding="utf-8")
    with pytest.raises(DataError):
        read_questions(bare, labelled=True)
    words = ["finetune", str(encoder), "--train", str(bare), "--out", str(tmp_path / "o"), *OPTIONS]
    assert cli.main([*words, "--task", "question-answering"]) == 2
