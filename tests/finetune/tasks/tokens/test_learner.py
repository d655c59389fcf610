"""Token classification from files to predictions: one score from `finetune`, `predict`, seqeval and
the pipeline of `transformers`.
"""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import seqeval.metrics
import torch
import transformers

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.finetune.predict import open_predictor

OPTIONS = ["--lr", "3e-3", "--layer-decay", "1", "--batch", "16", "--epochs", "5"]
OPTIONS += ["--max-length", "48", "--device", "cpu"]
TASK = ["--task", "token-classification"]
NAMES = ("Anna", "Tom de Abo", "The Author")
# words that each begin with a token of the small vocabulary, not with a space of its own
PLACES = ("Italy", "The class", "Aden")

Sentence = tuple[list[str], list[str]]


def sentences(count: int, seed: int, scheme: str = "IOB2") -> list[Sentence]:
    """Who went where: the kind of an entity hangs on its place in the sentence."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words, labels = ["Today"], ["O"]
        for kind, text in (("PER", draw.choice(NAMES)), ("LOC", draw.choice(PLACES))):
            own = text.split()
            prefixes = ["B"] + ["I"] * (len(own) - 1)
            if scheme == "BILOU":
                prefixes[-1] = "L" if len(own) > 1 else "U"
            words += [*own, draw.choice(("went", "was")), "by"]
            labels += [*(f"{prefix}-{kind}" for prefix in prefixes), "O", "O"]
        found.append((words, labels))
    return found


def write_columns(path: Path, rows: list[Sentence]) -> Path:
    blocks = ["".join(f"{w} {t}\n" for w, t in zip(*row, strict=True)) for row in rows]
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.conll and dev.conll; the last sentence of that has more tokens than a window."""
    folder = tmp_path_factory.mktemp("words")
    write_columns(folder / "train.conll", sentences(120, 1))
    several = sentences(20, 3)
    long = (
        [word for words, _ in several for word in words],
        [label for _, labels in several for label in labels],
    )
    write_columns(folder / "dev.conll", [*sentences(60, 2), long])
    return folder


@pytest.fixture(scope="module")
def tuned(encoder: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained too little to be right everywhere, so that scores have something to tell."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    given = ["--train", str(files / "train.conll"), "--dev", str(files / "dev.conll")]
    assert cli.main(["finetune", str(encoder), *given, "--out", str(out), *TASK, *OPTIONS]) == 0
    return out


def kept_scores(folder: Path) -> dict[str, float]:
    marker = json.loads((folder / "electra_dist.json").read_text())
    scores: dict[str, float] = marker["scores"]["epochs"]["1"][-1]
    return scores


def predicted(
    folder: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[list[dict[str, Any]], str]:
    capsys.readouterr()
    words = [str(folder), "--input", str(file), "--json", "--device", "cpu"]
    assert cli.main(["predict", *words]) == 0
    printed = capsys.readouterr()
    return [json.loads(line) for line in printed.out.splitlines()], printed.err


def labels_of_file(path: Path) -> list[list[str]]:
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    return [[line.split()[1] for line in block.splitlines()] for block in blocks]


def test_predict_gives_the_scores_of_finetune_and_of_seqeval(
    tuned: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = kept_scores(tuned)
    found, printed = predicted(tuned, files / "dev.conll", capsys)
    expected = labels_of_file(files / "dev.conll")
    labels = [one["labels"] for one in found]
    assert 0.3 < scores["f1"] < 1
    assert scores["f1"] == pytest.approx(seqeval.metrics.f1_score(expected, labels))
    assert scores["recall"] == pytest.approx(seqeval.metrics.recall_score(expected, labels))
    assert scores["accuracy"] == pytest.approx(seqeval.metrics.accuracy_score(expected, labels))
    for name, value in scores.items():
        assert f"{name} {value:.4f}" in printed
    for one in found:
        for entity in one["entities"]:
            assert one["text"][entity["start"] : entity["end"]] == entity["text"]


def test_a_plain_load_and_the_pipeline_give_the_same(
    tuned: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = predicted(tuned, files / "dev.conll", capsys)
    model = transformers.AutoModelForTokenClassification.from_pretrained(tuned).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tuned)
    classify = transformers.pipeline(
        "token-classification",
        model=model,
        tokenizer=tokenizer,
        aggregation_strategy="first",
        device="cpu",
    )
    for one in found[:-1]:
        inputs = tokenizer(one["words"], is_split_into_words=True, return_tensors="pt")
        with torch.inference_mode():
            probabilities = model(**inputs).logits[0].softmax(dim=-1)
        owners = inputs.word_ids()
        first = [owners.index(word) for word in range(len(one["words"]))]
        assert one["probabilities"] == pytest.approx(
            probabilities[first].max(dim=-1).values.tolist(), abs=1e-5
        )
        assert "▁" not in inputs.tokens()  # the pipeline takes a lone space for a word
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "does not support real words"
            groups = classify(one["words"], is_split_into_words=True)[0]
        assert len(groups) == len(one["entities"])
        for group, entity in zip(groups, one["entities"], strict=True):
            assert group["entity_group"] == entity["label"]
            assert group["end"] == entity["end"]
            assert group["score"] == pytest.approx(entity["probability"], abs=1e-5)
    assert len(found[-1]["words"]) == len(labels_of_file(files / "dev.conll")[-1])


def test_texts_items_and_blank_lines(tuned: Path, tmp_path: Path) -> None:
    texts = ["Today Anna went by, Lisbon goes by.", "", "Today Tom Weiss went by"]
    found = electra_dist.predict(tuned, texts, device="cpu")
    assert found.kind == "token-classification"
    assert [one["text"] for one in found.items] == texts
    assert found.items[1]["words"] == found.items[1]["entities"] == []
    assert found.items[0]["words"][3:6] == ["by", ",", "Lisbon"]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    assert electra_dist.predict(tuned, file=path, device="cpu").items == found.items
    predictor = open_predictor(tuned, torch.device("cpu"))
    item = predictor.item({"words": texts[2].split()}, "here")
    (alone,) = predictor.predict([item])
    assert alone.content["labels"] == found.items[2]["labels"]
    assert all(len(cells) == len(predictor.header) for cells in alone.cells)


def test_an_ensemble_of_one_model_with_itself_is_the_model(tuned: Path, files: Path) -> None:
    predictor: Any = open_predictor(tuned, torch.device("cpu"))
    items = predictor.read(files / "dev.conll")
    outputs = predictor.outputs(items)
    twice = predictor.mixed([outputs, outputs])
    source = files / "dev.conll"
    assert predictor.scores(items, twice, source) == predictor.scores(items, outputs, source)


def test_labels_that_are_unknown_or_break_the_scheme(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_columns(tmp_path / "a.conll", [(["Anna", "Weiss", "."], ["O", "I-PER", "O"])])
    _, printed = predicted(tuned, path, capsys)
    assert "1 labels are not as IOB2" in printed
    assert f"{path}, line 2: I-PER is read as B-PER" in printed
    write_columns(path, [(["Anna", "."], ["B-PERS", "O"])])
    assert cli.main(["predict", str(tuned), "--input", str(path), "--device", "cpu"]) == 2
    printed = capsys.readouterr().err
    assert f"{path}, line 1: the label 'B-PERS' is not one of the training data" in printed


def finetuned(encoder: Path, out: Path, train: Path, *others: str) -> int:
    words = ["--train", str(train), "--dev", str(train), "--out", str(out)]
    quick = ["--epochs", "0.2", "--max-length", "32", "--device", "cpu"]
    return cli.main(["finetune", str(encoder), *words, *TASK, *quick, *others])


def test_bilou_and_plain_labels(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bilou = write_columns(tmp_path / "a.conll", sentences(40, 1, "BILOU"))
    assert finetuned(encoder, tmp_path / "bilou", bilou) == 0
    assert "80 entities in BILOU: LOC (40), PER (40)" in capsys.readouterr().out
    config = json.loads((tmp_path / "bilou" / "config.json").read_text())
    assert set(config["id2label"].values()) >= {"O", "U-PER", "L-LOC", "I-PER"}
    plain = tmp_path / "b.jsonl"
    rows = [
        {"tokens": words, "tags": ["NAME" if label != "O" else "X" for label in labels]}
        for words, labels in sentences(40, 1)
    ]
    plain.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    names = ["--text", "tokens", "--label", "tags"]
    assert finetuned(encoder, tmp_path / "plain", plain, *names, "--json") == 0
    printed = capsys.readouterr()
    assert "2 labels, which mark no entities: NAME (" in printed.err
    report = json.loads(printed.out)
    assert report["main_score"] == "accuracy"
    assert report["simple"]["accuracy"] > 0.99  # each word has one label
    found, printed_scores = predicted(tmp_path / "plain", plain, capsys)
    assert f"macro_f1 {report['median']['macro_f1']:.4f}" in printed_scores
    assert "entities" not in found[0]
    said = [label for one in found for label in one["labels"]]
    right = [label for row in rows for label in row["tags"]]
    same = sum(a == b for a, b in zip(said, right, strict=True)) / len(right)
    assert report["median"]["accuracy"] == pytest.approx(same)


def test_a_head_is_kept_for_the_same_labels_only(
    tuned: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_columns(tmp_path / "a.conll", [(["Anna", "."], ["B-X", "O"])] * 4)
    assert finetuned(tuned, tmp_path / "a", other, "--keep-head") == 2
    assert "leave it out to start a new head" in capsys.readouterr().err
    assert finetuned(tuned, tmp_path / "b", files / "dev.conll", "--keep-head") == 0
    assert kept_scores(tmp_path / "b")["f1"] > 0.3


def test_a_marker_with_an_unknown_scheme(tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in tuned.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    marker = json.loads((folder / "electra_dist.json").read_text())
    (folder / "electra_dist.json").write_text(json.dumps(marker | {"scheme": "IOB9"}))
    with pytest.raises(UserError, match="'scheme' is 'IOB9'; expected one of IOB1"):
        open_predictor(folder, torch.device("cpu"))
