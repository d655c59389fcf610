"""Several seeds together: on the held-out examples, as folders, and through `predict`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.finetune.run import finetune
from electra_dist.finetune.seeds.soup import greedy
from tests.support.small_finetune import settings


@pytest.fixture(scope="module")
def three(encoder: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds that have learnt a part of the task."""
    out = tmp_path_factory.mktemp("three") / "out"
    finetune(settings(encoder, labelled, out, seeds=(1, 2, 3), ensemble=True, epochs=1, lr=1e-3))
    return out


def probabilities(folder: Path, texts: list[str]) -> np.ndarray:
    """Of plain transformers."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
        return model(**inputs).logits.softmax(dim=1).double().numpy()


def folders(three: Path) -> list[Path]:
    return [three / f"seed-{seed}" for seed in (1, 2, 3)]


def test_the_ensemble_is_the_mean_of_the_probabilities_of_transformers(
    three: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [line.split("\t") for line in (labelled / "dev.tsv").read_text().splitlines()[1:]]
    texts = [text for text, _ in rows]
    mean = np.mean([probabilities(folder, texts) for folder in folders(three)], axis=0)
    paths = [str(folder) for folder in folders(three)]
    assert cli.main(["predict", *paths, "--input", str(labelled / "dev.tsv"), "--json"]) == 0
    printed = capsys.readouterr()
    found = [json.loads(line)["probabilities"] for line in printed.out.splitlines()]
    np.testing.assert_allclose([[one["neg"], one["pos"]] for one in found], mean, atol=1e-5)
    labels = np.array(["neg", "pos"])[mean.argmax(axis=1)]
    accuracy = float(np.mean(labels == [label for _, label in rows]))
    scores = json.loads((three / "electra_dist.json").read_text())["scores"]
    assert scores["together"]["ensemble"]["accuracy"] == pytest.approx(accuracy)
    assert f"accuracy {accuracy:.4f}" in printed.err
    again = electra_dist.predict(folders(three), texts[:2])
    assert again.items[1]["probabilities"]["pos"] == pytest.approx(mean[1, 1], abs=1e-5)


def test_the_soup_is_the_mean_of_the_weights_and_is_scored_as_it_predicts(
    three: Path, labelled: Path
) -> None:
    marker = json.loads((three / "soup" / "electra_dist.json").read_text())
    states = [load_file(three / f"seed-{seed}" / "model.safetensors") for seed in marker["soup"]]
    soup = load_file(three / "soup" / "model.safetensors")
    for name, tensor in soup.items():
        expected = np.mean([state[name].astype(np.float64) for state in states], axis=0)
        np.testing.assert_allclose(tensor, expected, rtol=1e-6, atol=1e-8)
    found = electra_dist.predict(three / "soup", file=labelled / "dev.tsv")
    assert found.scores == pytest.approx(marker["scores"]["together"]["greedy soup"])


def test_the_seeds_begin_with_one_head_and_are_different(three: Path) -> None:
    states = [load_file(folder / "model.safetensors") for folder in folders(three)]
    head = "classifier.dense.weight"
    apart = np.abs(states[0][head] - states[1][head]).mean()
    assert 0 < apart < 0.02 * 2 / np.sqrt(np.pi) / 2  # of two draws it is twice that much


def test_the_greedy_soup_takes_what_does_not_lower_the_score() -> None:
    merits = {(1,): 0.8, (1, 2): 0.7, (1, 3): 0.8, (1, 3, 4): 0.9}
    assert greedy([1, 2, 3, 4], lambda seeds: merits[tuple(seeds)]) == [1, 3, 4]


def test_models_for_different_things_do_not_answer_together(
    three: Path, encoder: Path, tmp_path: Path
) -> None:
    first, second, _ = folders(three)
    marker = json.loads((second / "electra_dist.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for path in second.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "electra_dist.json").write_text(json.dumps(marker | {"labels": ["a", "b"]}))
    with pytest.raises(UserError, match=r"other: its labels is \['a', 'b'\], but that of"):
        electra_dist.predict([first, other], ["text"])
    (other / "electra_dist.json").write_text(json.dumps(marker))
    content = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(content, indent=1))
    with pytest.raises(UserError, match="has another tokenizer"):
        electra_dist.predict([first, other], ["text"])
    with pytest.raises(UserError, match="only fine-tuned models answer together"):
        electra_dist.predict([encoder, encoder], ["text"])
