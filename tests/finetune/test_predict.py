"""Prediction with the pre-trained networks,
against their logits taken from transformers by hand.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
import transformers

from electra_dist.cli import main as cli
from tests.support.toy_task import random_model


@pytest.fixture(scope="module")
def networks(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """discriminator/ and generator/ as an export leaves them, with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    for network, kind in (
        ("discriminator", "ElectraForPreTraining"),
        ("generator", "ElectraForMaskedLM"),
    ):
        random_model(folder / network, kind, tiny_shards.parent / "tokenizer")
        (folder / network / "electra_dist.json").write_text(json.dumps({"network": network}))
    return folder


def predicted(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert cli.main(["predict", *words, "--device", "cpu"]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_discriminator_judges_each_token(
    networks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["The value of the object.", "A literal [MASK] is plain text, for a while at least."]
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    folder = networks / "discriminator"
    found = [
        json.loads(line)
        for line in predicted([str(folder), "--input", str(file), "--json"], capsys)
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForPreTraining.from_pretrained(folder).eval()
    for text, one in zip(texts, found, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = torch.sigmoid(model(**inputs).logits[0, 1:-1])
        assert [t["token"] for t in one["tokens"]] == tokenizer.convert_ids_to_tokens(
            inputs["input_ids"][0]
        )[1:-1]
        torch.testing.assert_close(
            torch.tensor([t["replaced"] for t in one["tokens"]]), expected, atol=1e-5, rtol=0
        )
        for token in one["tokens"]:
            assert text[token["start"] : token["end"]].strip() == token["token"].lstrip("▁")
    lines = predicted([str(folder), "--input", str(file)], capsys)
    assert lines[0] == "text\ttoken\treplaced"
    assert len(lines) == 1 + sum(len(one["tokens"]) for one in found)


def test_the_generator_fills_each_mask(
    networks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, text = networks / "generator", "The [MASK] of the [MASK] is here."
    monkeypatch.setattr("sys.stdin", io.StringIO(text + "\n"))
    (line,) = predicted([str(folder), "--count", "3", "--json"], capsys)
    masks = json.loads(line)["masks"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt", split_special_tokens=False)["input_ids"]
    places = (ids[0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    assert len(places) == len(masks) == 2
    with torch.no_grad():
        probabilities = model(ids).logits[0].softmax(dim=-1)
    for place, mask in zip(places, masks, strict=True):
        best = probabilities[place].topk(3)
        assert [one["token"] for one in mask] == tokenizer.convert_ids_to_tokens(best.indices)
        assert [one["probability"] for one in mask] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_texts_that_do_not_fit(
    networks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [
        ("generator", "no mask here\n", "text 1: has no [MASK]"),
        ("discriminator", "short\n" + "long " * 200 + "\n", "text 2: "),
    ]
    for network, text, words in cases:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert cli.main(["predict", str(networks / network), "--device", "cpu"]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["predict", str(networks / "generator"), "--count", "0"]) == 2
