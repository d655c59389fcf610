"""Early stopping, the epoch that is kept, and who may end a seed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file

from electra_dist.errors import UserError
from electra_dist.finetune.run import finetune
from electra_dist.finetune.seeds import callbacks
from tests.support.small_finetune import settings


def marker(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "electra_dist.json").read_text())
    return content


def told(accuracies: list[float]) -> Any:
    """Scores of the learner that are these, one evaluation after the other."""
    left = iter(accuracies)

    def scores(learner: Any, outputs: Any) -> dict[str, float]:
        value = next(left)
        return {"accuracy": value, "macro_f1": 1 - value, "matthews": 0.0, "f1": 0.0}

    return scores


def test_a_seed_ends_when_its_patience_is_over_and_keeps_the_best_epoch(
    encoder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, Any] = {}

    class Watcher(transformers.TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            weight = others["model"].electra.encoder.layer[0].attention.self.query.weight
            seen[state.epoch] = weight.detach().clone()

    begin = callbacks.HeldOut.on_epoch_end

    def both(self: Any, args: Any, state: Any, control: Any, **others: Any) -> None:
        Watcher().on_epoch_end(args, state, control, **others)
        begin(self, args, state, control, **others)

    monkeypatch.setattr(callbacks.HeldOut, "on_epoch_end", both)
    monkeypatch.setattr(callbacks, "scores_of", told([0.5, 0.8, 0.7, 0.8, 0.9]))
    out = tmp_path / "out"
    report = finetune(settings(encoder, labelled, out, epochs=5, patience=2))
    assert list(seen) == [1, 2, 3, 4]  # the fourth is no better than the second
    assert report.epochs == {1: 2.0}
    assert report.seeds[1]["accuracy"] == 0.8
    kept = load_file(out / "model.safetensors")
    name = "electra.encoder.layer.0.attention.self.query.weight"
    assert kept[name].equal(seen[2])
    assert "best epoch (chosen on these examples" in report.title
    assert "epoch 2" in (out / "README.md").read_text()


def test_another_metric_chooses_and_the_last_epoch_can_be_kept(
    encoder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "scores_of", told([0.5, 0.8, 0.7] * 2))
    best = settings(encoder, labelled, tmp_path / "a", epochs=3, keep="best", metric="macro_f1")
    assert finetune(best).epochs == {1: 1.0}
    last = settings(encoder, labelled, tmp_path / "b", epochs=3)
    assert finetune(last).epochs == {1: 3.0}


def test_whoever_is_called_after_an_epoch_can_end_the_seed(
    encoder: Path, labelled: Path, tmp_path: Path
) -> None:
    calls = []

    def after(seed: int, epoch: float, scores: dict[str, float]) -> bool:
        calls.append((seed, epoch, "accuracy" in scores))
        return seed == 1

    report = finetune(settings(encoder, labelled, tmp_path / "out", epochs=2, seeds=(1, 2)), after)
    assert calls == [(1, 1.0, True), (2, 1.0, True), (2, 2.0, True)]
    assert report.epochs == {1: 1.0, 2: 2.0}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"metric": "bleu"},
            r"`metric` bleu: is no score of classification; expected one of accuracy, macro_f1",
        ),
        ({"schedule": "steps"}, r"`schedule` steps: expected one of linear, cosine"),
        ({"freeze": 3}, r"`freeze` 3: expected from 0 to 2 \(the encoder's layers\)"),
        ({"accumulate": 3}, r"`batch` 16: cannot be cut into 3 micro-batches"),
        ({"dropout": 1.0}, r"`dropout` 1: expected from 0 to 0.9"),
        ({"ensemble": True}, r"`ensemble`: needs two `seeds`"),
    ],
)
def test_what_cannot_be_is_refused_before_the_training(
    encoder: Path, labelled: Path, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        finetune(settings(encoder, labelled, tmp_path / "out", **given))
    assert not list(tmp_path.iterdir())


def test_what_needs_held_out_examples_says_so(
    encoder: Path, labelled: Path, tmp_path: Path
) -> None:
    asked = settings(encoder, labelled, tmp_path / "out", patience=1)
    with pytest.raises(UserError, match=r"`patience` 1: needs held-out examples; give `dev`"):
        finetune(dataclasses.replace(asked, dev=None))
