"""Ranking from files to an order: learnt, and the same from each way of asking."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn.metrics import ndcg_score, roc_auc_score

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.predict import open_predictor
from electra_dist.finetune.tasks.ranking.baselines import without_model
from electra_dist.finetune.tasks.ranking.learner import RelevantCandidates
from electra_dist.finetune.tasks.ranking.queries import Query, read_queries
from tests.support.toy_task import BAD, GOOD, SUBJECTS

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "mind"
COLUMNS = Columns("query", "candidates", "relevant")
OPTIONS = ["--task", "ranking", "--device", "cpu"]
FAST = ["--lr", "3e-3", "--layer-decay", "1", "--batch", "16", "--max-length", "48"]


def lists(path: Path, count: int, seed: int) -> Path:
    """From 3 to 7 candidates, some of which praise; nearly all occur once."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        size = draw.randint(3, 7)
        relevant = [1, 0, *(int(draw.random() < 0.3) for _ in range(size - 2))]
        draw.shuffle(relevant)
        row = {
            "query": f"praise of {draw.choice(SUBJECTS)}",
            "candidates": [
                f"{draw.choice(SUBJECTS)} is {draw.choice(GOOD if grade else BAD)},"
                f" page {draw.randint(100, 999)}"
                for grade in relevant
            ],
            "relevant": relevant,
        }
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl, dev.jsonl and out/, fine-tuned on them."""
    made = tmp_path_factory.mktemp("ranking")
    train = lists(made / "train.jsonl", 150, seed=1)
    dev = lists(made / "dev.jsonl", 50, seed=2)
    files = ["--train", str(train), "--dev", str(dev), "--out", str(made / "out")]
    assert cli.main(["finetune", str(encoder), *files, *OPTIONS, *FAST, "--epochs", "2"]) == 0
    return made


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]


def test_it_learns_and_predict_and_transformers_say_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = json.loads((folder / "out" / "electra_dist.json").read_text())["scores"]
    median = scores["median"]
    assert median["ndcg@10"] > 0.95
    assert scores["simple"]["ndcg@10"] < 0.85
    words = ["predict", str(folder / "out"), "--input", str(folder / "dev.jsonl")]
    assert cli.main([*words, "--json", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    for name, value in median.items():
        assert f"{name} {value:.4f}" in printed.err.splitlines()
    found = [json.loads(line) for line in printed.out.splitlines()]

    judge = transformers.pipeline(
        "text-classification",
        model=str(folder / "out"),
        device="cpu",
        function_to_apply="none",
    )
    ndcgs = []
    aucs = []
    for row, one in zip(rows(folder), found, strict=True):
        pairs = [{"text": row["query"], "text_pair": text} for text in row["candidates"]]
        expected = [answer["score"] for answer in judge(pairs)]
        place = {entry["index"]: entry for entry in one["ranking"]}
        assert [place[i]["candidate"] for i in range(len(pairs))] == row["candidates"]
        assert [place[i]["score"] for i in range(len(pairs))] == pytest.approx(expected, abs=1e-5)
        shown = [entry["score"] for entry in one["ranking"]]
        assert shown == sorted(shown, reverse=True)
        ndcgs.append(ndcg_score([row["relevant"]], [expected], k=10))
        aucs.append(roc_auc_score(row["relevant"], expected))
    assert np.mean(ndcgs) == pytest.approx(median["ndcg@10"], abs=1e-6)
    assert np.mean(aucs) == pytest.approx(median["auc"], abs=1e-6)


def test_one_item_of_a_server_and_of_the_library(folder: Path) -> None:
    row = rows(folder)[0]
    predictor = open_predictor(folder / "out", torch.device("cpu"))
    assert predictor.fields == ("query", "candidates")
    fields = {"query": row["query"], "candidates": row["candidates"]}
    (one,) = predictor.predict([predictor.item(fields, "request 1")])
    asked = electra_dist.predict(
        folder / "out", [row["query"]], pairs=[row["candidates"]], device="cpu"
    )
    order = [entry["index"] for entry in one.content["ranking"]]
    assert [entry["index"] for entry in asked.items[0]["ranking"]] == order
    with pytest.raises(DataError, match="request 1: 'candidates' is None"):
        predictor.item({"query": "a"}, "request 1")


def test_mind_is_trained_on_and_ordered(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    files = ["--train", str(SAMPLE), "--dev", str(SAMPLE / "behaviors.tsv"), "--out", str(out)]
    how = [*OPTIONS, *FAST, "--epochs", "0.5", "--json"]
    assert cli.main(["finetune", str(encoder), *files, *how]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["examples"]["queries to train on"] == 48
    assert set(report["median"]) == {"ndcg@10", "ndcg@5", "mrr", "auc"}
    assert cli.main(["predict", str(out), "--input", str(SAMPLE), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "query\tplace\tscore\tcandidate"
    assert len(lines) == 1 + 48 * 6
    for name, value in report["median"].items():
        assert f"{name} {value:.4f}" in printed.err.splitlines()


def test_each_relevant_candidate_is_set_against_drawn_ones_of_a_lower_grade(
    encoder: Path,
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    texts = tuple(f"the value {number}" for number in range(9))
    query = Query("1", "which?", texts, (0, 2, 0, 1, 0, 0, 0, 0, 0))
    equal = Query("2", "which?", texts[:2], (1, 1))
    features = RelevantCandidates([equal, query], tokenizer, 48)
    assert len(features) == 2

    def drawn(index: int) -> list[str]:
        one = features[index]
        assert one["labels"] == 0
        return [
            tokenizer.decode(ids).split("the value ")[1].split("[")[0].strip()
            for ids in one["input_ids"]
        ]

    torch.manual_seed(1)
    first = [drawn(1) for _ in range(40)]
    torch.manual_seed(1)
    assert [drawn(1) for _ in range(40)] == first
    assert all(one[0] == "3" and len(set(one)) == 5 for one in first)
    assert {name for one in first for name in one[1:]} == set("0245678")
    best = [drawn(0) for _ in range(40)]
    assert all(one[0] == "1" for one in best)
    assert {name for one in best for name in one[1:]} == set("02345678")


def test_the_better_order_without_a_model_is_the_one_to_beat() -> None:
    known = [Query("1", "q", ("popular", "other"), (1, 0))]
    popular = [Query("2", "other", ("other", "popular"), (0, 1))]
    overlap = [Query("3", "other words", ("popular", "some other words"), (0, 1))]
    (name, scores) = without_model(known, popular, "ndcg@10")
    assert "relevant in training" in name
    assert scores["ndcg@10"] == 1
    (name, scores) = without_model(known, overlap, "ndcg@10")
    assert "words of the query" in name
    assert scores["auc"] == 1


def test_a_file_without_anything_to_learn_is_refused(encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "equal.jsonl"
    path.write_text(json.dumps({"query": "q", "candidates": ["a", "b"], "relevant": [0, 0]}))
    assert not read_queries(path, COLUMNS)[0].can_be_ordered
    files = ["--train", str(path), "--out", str(tmp_path / "out")]
    assert cli.main(["finetune", str(encoder), *files, *OPTIONS]) == 2
