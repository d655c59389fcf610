"""What the options do to a model and to a step, against plain PyTorch and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file
from torch import nn

from electra_dist.finetune.recipe import SCHEDULES, default_recipe, parameter_groups, prepare
from electra_dist.finetune.run import finetune
from tests.support.small_finetune import settings


def network() -> Any:
    config = transformers.ElectraConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
    )
    return transformers.ElectraForSequenceClassification(config)


def recipe(**given: Any) -> Any:
    import dataclasses

    return dataclasses.replace(default_recipe(16, 3, 128), **given)


@pytest.mark.parametrize(
    ("freeze", "parts"),
    [
        (None, ()),
        (0, ("electra.embeddings",)),
        (2, ("electra.embeddings", "electra.encoder.layer.0.", "electra.encoder.layer.1.")),
    ],
)
def test_what_is_frozen_learns_nothing(freeze: int | None, parts: tuple[str, ...]) -> None:
    model = network()
    prepare(model, 3, recipe(freeze=freeze))
    groups = parameter_groups(model.named_parameters(), 3, recipe())
    learning = {id(parameter) for group in groups for parameter in group["params"]}  # type: ignore[attr-defined]
    for name, parameter in model.named_parameters():
        assert (id(parameter) in learning) != name.startswith(parts or "-"), name


def test_the_dropout_is_everywhere_or_that_of_the_configuration() -> None:
    model = network()
    rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert rates == {0.1}
    prepare(model, 3, recipe(dropout=0.3))
    rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert rates == {0.3}


def losses_of(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_micro_batches_come_to_the_step_of_the_whole_batch(
    encoder: Path, labelled: Path, tmp_path: Path, smoothing: float
) -> None:
    common = {"epochs": 0.4, "dropout": 0.0, "label_smoothing": smoothing}
    finetune(settings(encoder, labelled, tmp_path / "whole", **common))
    finetune(settings(encoder, labelled, tmp_path / "parts", accumulate=4, **common))
    losses = [[row["loss"] for row in losses_of(tmp_path / name)] for name in ("whole", "parts")]
    np.testing.assert_allclose(losses[0], losses[1], atol=2e-3)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts")]
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(tensor, weights[1][name], atol=2e-3, err_msg=name)


def test_the_schedule_is_that_of_transformers(
    encoder: Path, labelled: Path, tmp_path: Path
) -> None:
    finetune(settings(encoder, labelled, tmp_path / "out", epochs=0.8, schedule="cosine"))
    rows = losses_of(tmp_path / "out")
    steps = int(rows[-1]["step"])
    model = nn.Linear(1, 1)
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=3e-3)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    found = [row["lr"] for row in rows]
    assert found == pytest.approx([rates[int(row["step"]) - 1] for row in rows], rel=1e-4)


def test_every_schedule_is_one_of_transformers_that_takes_a_warm_up() -> None:
    from transformers import SchedulerType

    assert set(SCHEDULES.values()) <= {kind.value for kind in SchedulerType}


def test_the_curves_of_all_seeds_are_written_and_drawn(
    encoder: Path, labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = finetune(settings(encoder, labelled, out, epochs=1, seeds=(1, 2)))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {row["seed"] for row in rows} == {1, 2}
    held_out = [row for row in rows if "held_out/accuracy" in row]
    assert [row["held_out/accuracy"] for row in held_out] == pytest.approx(
        [scores["accuracy"] for scores in report.seeds.values()]
    )
    assert {"step", "seed", "epoch", "loss", "lr", "examples_per_second"} == set(rows[0])
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_wandb_has_a_run_per_seed_and_no_path(
    encoder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    monkeypatch.setenv("WANDB_MODE", "offline")
    asked = settings(encoder, labelled, tmp_path / "named", epochs=0.2, seeds=(1, 2))
    finetune(dataclasses.replace(asked, wandb="online"))
    files = list((tmp_path / "named" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    for file in files:
        content = file.read_bytes()
        assert b"held_out/accuracy" in content
        assert b"named" in content  # the group
        assert str(tmp_path).encode() not in content
