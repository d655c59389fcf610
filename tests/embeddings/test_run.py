"""From texts to vectors of a layer, against transformers and sentence-transformers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy import stats
from sentence_transformers import SentenceTransformer

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.embeddings import run
from tests.support.toy_task import belonging

TEXTS = ["The value.", "", "A longer text, which goes on for a while.", "b", "the film is dull"]


def embed(*words: str | Path) -> int:
    return cli.main(["embed", *map(str, words), "--device", "cpu"])


def by_hand(encoder: Path, texts: list[str], layer: int, pool: str = "mean") -> np.ndarray:
    """Each text on its own."""
    model = transformers.AutoModel.from_pretrained(encoder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    vectors = []
    for text in texts:
        with torch.no_grad():
            inputs = tokenizer(text, return_tensors="pt")
            states = model(**inputs, output_hidden_states=True).hidden_states[layer][0]
        vectors.append((states.mean(dim=0) if pool == "mean" else states[0]).numpy())
    return np.stack(vectors)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_vectors_are_those_of_the_layer(
    encoder: Path, tmp_path: Path, texts: Path, layer: int, pool: str
) -> None:
    out = tmp_path / "vectors.npy"
    words = ["--layer", str(layer), "--pool", pool]
    assert embed(encoder, "--input", texts, "--out", out, *words) == 0
    np.testing.assert_allclose(np.load(out), by_hand(encoder, TEXTS, layer, pool), atol=1e-5)
    meta = json.loads((tmp_path / "vectors.npy.meta.json").read_text())
    assert (meta["layer"], meta["layers"], meta["count"]) == (layer, 2, len(TEXTS))
    assert meta["pooling"] == {"pool": pool, "normalize": False}


def test_order_is_kept_over_parts_and_from_standard_input(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_PART", 3)
    given = [f"{'long ' * (number % 5)}text {number}" for number in range(11)]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(text + "\n" for text in given)))
    out = tmp_path / "vectors.jsonl"
    assert embed(encoder, "--out", out, "--normalize") == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["text"] for row in rows] == given
    expected = by_hand(encoder, given, 2)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose([row["vector"] for row in rows], expected, atol=1e-5)


def test_no_more_texts_are_read_than_a_part(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_PART", 4)
    read = 0
    ahead: list[int] = []

    def lines() -> Any:
        nonlocal read
        for number in range(12):
            read += 1
            yield f"text {number}"

    done = 0
    embedder = run.Embedder.__call__

    def counted(self: Any, part: list[str]) -> Any:
        nonlocal done
        ahead.append(read - done)
        done += len(part)
        return embedder(self, part)

    monkeypatch.setattr(run.Embedder, "__call__", counted)
    settings = run.Settings(encoder, texts=lines(), out=tmp_path / "v.npy", device="cpu")
    assert run.embed(settings).count == 12
    assert ahead == [4, 4, 4]


def test_the_best_layer_is_that_of_the_scores_by_hand(
    encoder: Path, tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = belonging(tmp_path / "pairs.jsonl", 40, 1, "scored")
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    labels = [row["label"] for row in rows]
    expected = []
    for layer in range(3):
        one = by_hand(encoder, [row["text"] for row in rows], layer)
        two = by_hand(encoder, [row["pair"] for row in rows], layer)
        cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        expected.append(float(stats.spearmanr(cosines, labels).statistic))
    assert embed(encoder, "--choose-layer", pairs, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    found = [scores["spearman"] for scores in report["choice"]["scores"]]
    assert found == pytest.approx(expected, abs=1e-3)
    best = int(np.argmax(found))
    assert report["layer"] == report["choice"]["layer"] == best
    assert "auc" in report["choice"]["simple"]
    out = tmp_path / "vectors.npy"
    words = ["--choose-layer", pairs, "--layer", "best", "--input", texts, "--out", out]
    assert embed(encoder, *words) == 0
    assert f"{best} *" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(out), by_hand(encoder, TEXTS, best), atol=1e-5)
    meta = json.loads((tmp_path / "vectors.npy.meta.json").read_text())
    assert [scores["spearman"] for scores in meta["choice"]["scores"]] == found


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_model_of_a_layer_is_one_for_sentence_transformers(
    encoder: Path, tmp_path: Path, texts: Path, layer: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert embed(encoder, "--layer", str(layer), "--normalize", "--out-model", model) == 0
    config = json.loads((model / "config.json").read_text())
    assert config["num_hidden_layers"] == layer
    sentences = SentenceTransformer(str(model), device="cpu")
    expected = by_hand(encoder, TEXTS, layer)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(sentences.encode(TEXTS), expected, atol=1e-5)
    capsys.readouterr()
    words = ["predict", str(model), "--input", str(texts), "--json", "--device", "cpu"]
    assert cli.main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose([row["vector"] for row in rows], expected, atol=1e-5)
    out = tmp_path / "again.npy"
    assert embed(model, "--input", texts, "--out", out) == 0
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)


def test_a_model_of_the_best_layer_can_be_tuned(encoder: Path, tmp_path: Path) -> None:
    pairs = belonging(tmp_path / "pairs.jsonl", 60, 1)
    model = tmp_path / "model"
    words = ["--choose-layer", pairs, "--pool", "cls", "--layer", "1", "--out-model", model]
    assert embed(encoder, *words) == 0
    marker = json.loads((model / "electra_dist.json").read_text())
    assert len(marker["choice"]["scores"]) == 3
    assert "| TF-IDF |" in (model / "README.md").read_text()
    tuned = tmp_path / "tuned"
    words = ["finetune", str(model), "--task", "embeddings", "--train", str(pairs)]
    assert cli.main([*words, "--out", str(tuned), "--epochs", "1", "--device", "cpu"]) == 0
    assert json.loads((tuned / "electra_dist.json").read_text())["pool"] == "cls"
    assert json.loads((tuned / "config.json").read_text())["num_hidden_layers"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to do: give --out for vectors"),
        (["--layer", "best", "--out", "v.npy"], "--layer best: is found on pairs"),
        (["--layer", "3", "--out", "v.npy"], "--layer 3: expected from 0 (the embeddings) to 2"),
        (["--out", "v.bin"], "--out v.bin: expected a file ending in .npy"),
        (["--out-model", "full"], "--out-model full: exists and is not empty"),
        (["--max-length", "97", "--out", "v.npy"], "--max-length 97: expected from 2 to 96"),
        (["--out", "v.npy"], "--input: holds no text; nothing was written"),
        (["--text", "no", "--input", "t.tsv", "--out", "v.npy"], "t.tsv, line 2: has no 'no'"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    encoder: Path,
    tmp_path: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    (tmp_path / "t.tsv").write_text("text\tmore\na\tb\n", encoding="utf-8")
    assert embed(encoder, *words) == 2
    assert said in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full", "t.tsv"]


def test_texts_that_are_cut_are_counted_once(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(run, "_PART", 2)
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n" + "long text " * 40 + "\n" + "a\n" * 3))
    assert embed(encoder, "--out", tmp_path / "v.npy", "--max-length", "10") == 0
    assert "1 of 5 texts are longer than 10 tokens" in capsys.readouterr().err


def test_the_library_gives_the_same_vectors(encoder: Path, tmp_path: Path) -> None:
    pairs = belonging(tmp_path / "pairs.jsonl", 40, 1)
    found = electra_dist.embed_texts(encoder, TEXTS, pairs=pairs, device="cpu")
    assert found.choice is not None
    assert found.layer == found.choice.layer
    np.testing.assert_allclose(found.vectors, by_hand(encoder, TEXTS, found.layer), atol=1e-5)
    with pytest.raises(electra_dist.UserError, match="found one text"):
        electra_dist.embed_texts(encoder, "a text")
    with pytest.raises(electra_dist.UserError, match="`layer` best"):
        electra_dist.embed_texts(encoder, TEXTS, layer="best")
