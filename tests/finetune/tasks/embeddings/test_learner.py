"""Contrastive tuning from files to vectors: of our `predict`, and of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from sentence_transformers import SentenceTransformer

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.embeddings.pairs import read_pairs
from electra_dist.finetune.tasks.embeddings.scores import pair_scores
from tests.support.toy_task import belonging

TEXTS = ["The value.", "", "A longer text, which goes on for a while. " * 20, " x "]
RECIPE: dict[str, Any] = {"lr": 3e-3, "layer_decay": 1, "epochs": 3, "batch": 30, "max_length": 48}


def tuned(encoder: Path, folder: Path, kind: str, **more: Any) -> Any:
    return electra_dist.finetune_model(
        encoder,
        belonging(folder / "train.jsonl", 300, 1, kind),
        folder / "out",
        dev=belonging(folder / "dev.jsonl", 60, 2, kind),
        task="embeddings",
        device="cpu",
        **(RECIPE | more),
    )


@pytest.mark.parametrize("kind", ["pairs", "triples", "scored"])
def test_it_learns_and_three_ways_to_use_it_agree(encoder: Path, tmp_path: Path, kind: str) -> None:
    report = tuned(encoder, tmp_path, kind)
    dev = tmp_path / "dev.jsonl"
    out = tmp_path / "out"
    pairs = read_pairs(dev, Columns(pair="pair"))
    sentences = SentenceTransformer(str(out), device="cpu")
    start = SentenceTransformer(
        modules=[
            _transformer(encoder),
            sentences[1],
        ],
        device="cpu",
    )
    before = pair_scores(pairs, start.encode(list(pairs.texts)))
    main = pairs.main_score
    assert report.median[main] > before[main] + 0.1
    assert report.median[main] > report.simple[main] + 0.1

    theirs = pair_scores(pairs, sentences.encode(list(pairs.texts)))
    assert report.median == pytest.approx(theirs, abs=1e-5)
    predicted = electra_dist.predict(out, file=dev, device="cpu")
    assert predicted.scores == pytest.approx(report.median, abs=1e-5)
    for row, one in zip(dev.read_text().splitlines(), predicted.items, strict=True):
        assert one["text"] == json.loads(row)["text"]
        assert one["similarity"] == pytest.approx(
            float(np.dot(one["vector"], one["pair_vector"])), abs=1e-5
        )

    ours = electra_dist.predict(out, TEXTS, device="cpu")
    assert ours.kind == "embeddings"
    np.testing.assert_allclose(
        [one["vector"] for one in ours.items], sentences.encode(TEXTS), atol=1e-5
    )


def _transformer(encoder: Path) -> Any:
    from sentence_transformers.models import Transformer

    return Transformer(str(encoder), max_seq_length=48)


def test_a_plain_load_and_the_command_line(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(encoder, tmp_path, "pairs", epochs=1, seeds=(1, 2))
    out = tmp_path / "out"
    marker = json.loads((out / "electra_dist.json").read_text())
    assert list(marker["scores"]["epochs"]) == ["1", "2"]
    assert marker["recipe"]["temperature"] == 0.05
    card = (out / "README.md").read_text()
    assert "library_name: sentence-transformers" in card
    assert "| mrr |" in card
    model = transformers.AutoModel.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    states = model(**tokenizer("The value.", return_tensors="pt")).last_hidden_state
    vector = states[0].mean(dim=0).detach()
    file = tmp_path / "texts.txt"
    file.write_text("The value.\n\n", encoding="utf-8")
    capsys.readouterr()
    words = ["predict", str(out), "--input", str(file), "--device", "cpu"]
    assert cli.main([*words, "--json"]) == 0
    first, blank = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(first["vector"], vector / vector.norm(), atol=1e-5)
    assert blank["text"] == ""
    assert cli.main(words) == 0
    header, line, _ = capsys.readouterr().out.splitlines()
    assert header == "vector\ttext"
    np.testing.assert_allclose(
        [float(number) for number in line.split("\t")[0].split()], first["vector"], atol=1e-5
    )


def test_a_head_cannot_be_kept_where_there_is_none(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(encoder, tmp_path, "pairs", epochs=0.1)
    words = ["finetune", str(tmp_path / "out"), "--task", "embeddings", "--keep-head"]
    words += ["--train", str(tmp_path / "train.jsonl"), "--out", str(tmp_path / "more")]
    assert cli.main([*words, "--device", "cpu"]) == 2
    assert "--keep-head: a model for embeddings has no head" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_several_models_have_the_mean_of_their_cosines(encoder: Path, tmp_path: Path) -> None:
    import torch

    from electra_dist.finetune.predict import open_predictor

    tuned(encoder, tmp_path, "pairs", epochs=1)
    predictor: Any = open_predictor(tmp_path / "out", torch.device("cpu"))
    items = predictor.read(tmp_path / "dev.jsonl")
    one = predictor.outputs(items)
    draw = np.random.default_rng(1)
    axes = np.linalg.qr(draw.normal(size=(64, 64)))[0].astype(np.float32)
    other = [tuple(-vector @ axes + 0.1 for vector in vectors) for vectors in one]
    mixed = predictor.predictions(items, predictor.mixed([one, other]))
    for both, a, b in zip(
        mixed,
        predictor.predictions(items, one),
        predictor.predictions(items, other),
        strict=True,
    ):
        mean = (a.content["similarity"] + b.content["similarity"]) / 2
        assert both.content["similarity"] == pytest.approx(mean, abs=1e-5)
