"""One step: losses over the global counts, learning rates by network,
ranks without data, and what is reported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from electra_dist.batch import PADDING_DOCUMENT, MicroBatch, Step
from electra_dist.train.step import evaluate_step, train_step
from tests.support.plain import PlainTrainer
from tests.support.processes import run_ranks
from tests.support.small import (
    SEED,
    full_parameters,
    make_config,
    make_engines,
    make_micro_batch,
    make_step,
)


def blank(batch: MicroBatch) -> MicroBatch:
    """The same rows with nothing but padding in them."""
    count, length = batch.tokens.shape
    unused = batch.cu_seqlens.shape[0] - 1 - count
    ends = np.concatenate([np.arange(count + 1) * length, np.full(unused, count * length)])
    zeros = np.zeros_like(batch.tokens)
    return replace(
        batch,
        tokens=zeros,
        inputs=zeros,
        positions=zeros,
        documents=np.full_like(zeros, PADDING_DOCUMENT),
        cu_seqlens=ends.astype(np.int32),
        masked_positions=np.zeros_like(batch.masked_positions),
        masked_targets=np.zeros_like(batch.masked_targets),
        masked_weights=np.zeros_like(batch.masked_weights),
    )


def one_rank_without_data(world: Any) -> list[float]:
    """Rank 1 has only padding; the step must equal one over rank 0's rows, and end."""
    config = make_config()
    engines = make_engines(config, world)
    step, samples = make_step(config, 0, world.rank, world.world_size)
    if world.rank == 1:
        batches = tuple(blank(batch) for batch in step.micro_batches)
        step = Step(step.index, step.epoch, batches, masked_count=0, real_count=0)
    totals = train_step(engines, step, config, 1.0, samples)
    plain = PlainTrainer(config, SEED)
    plain.train([0, 2, 4, 6])
    parameters = full_parameters(engines)
    difference = max(
        float((parameters[key] - weight).abs().max()) for key, weight in plain.weights.items()
    )
    return [
        difference,
        float(totals.sums["masked_count"]),
        float(totals.sums["real_count"]),
        float(totals.sums["generator_loss_sum"]),
    ]


def test_a_rank_without_data_neither_hangs_nor_changes_the_means() -> None:
    first, second = run_ranks(one_rank_without_data, 2)
    assert first[0] < 1e-5
    assert second[0] < 1e-5
    assert first[1] > 0
    assert second[1:] == [0.0, 0.0, 0.0]


def reported_sums(world: Any) -> dict[str, Any]:
    """What the step and the validation say, and what plain PyTorch says of the same rows."""
    config = make_config("train.micro_rows=4")
    engines = make_engines(config, world)
    plain = PlainTrainer(config, SEED)
    rows = list(range(config.train.global_rows))
    plain.gradients(rows)
    validation = evaluate_step(engines, make_micro_batch(rows[:4])[0], config)
    modes = [engine.module.training for _, engine in engines]
    step, samples = make_step(config, 0, 0, 1)
    totals = train_step(engines, step, config, 0.5, samples)
    refused = ""
    try:
        train_step(engines, make_step(config, 0, 0, 2)[0], config, 1.0)
    except ValueError as error:
        refused = str(error)
    lrs = [group["lr"] for _, engine in engines for group in engine.optimizer.param_groups]
    return {
        "losses": [
            float(totals.sums["generator_loss_sum"] / totals.sums["masked_count"]),
            float(totals.sums["discriminator_loss_sum"] / totals.sums["real_count"]),
        ],
        "plain": plain.losses[-1],
        "counts": [
            float(totals.sums["masked_count"]),
            float(totals.sums["real_count"]),
            float(totals.sums["histogram"].sum()),
        ],
        "step counts": [step.masked_count, step.real_count],
        "validation": [
            float(validation.sums["real_count"]),
            float(validation.sums["histogram"].sum()),
            float(validation.skipped),
        ],
        "training": modes,
        "lrs": lrs,
        "refused": refused,
    }


@pytest.fixture(scope="module")
def reported() -> dict[str, Any]:
    """One rank's report; alone, without any launcher."""
    found: dict[str, Any] = run_ranks(reported_sums, 1)[0]
    return found


def test_reported_losses_are_those_of_plain_pytorch(reported: dict[str, Any]) -> None:
    assert reported["losses"] == pytest.approx(reported["plain"], rel=1e-5)


def test_reported_counts_are_those_of_the_step(reported: dict[str, Any]) -> None:
    masked, real, in_histogram = reported["counts"]
    assert [masked, real] == reported["step counts"]
    assert in_histogram == real


def test_validation_counts_real_tokens_and_leaves_the_networks_training(
    reported: dict[str, Any],
) -> None:
    real, in_histogram, skipped = reported["validation"]
    assert real == in_histogram > 0
    assert skipped == 0
    assert reported["training"] == [True, True]


def test_learning_rate_is_the_peak_of_each_network_times_the_factor(
    reported: dict[str, Any],
) -> None:
    assert reported["lrs"] == [pytest.approx(0.5e-3)] * 4


def test_a_step_of_another_accumulation_is_refused(reported: dict[str, Any]) -> None:
    assert reported["refused"] == "1 micro-batches in a step of 2"


def test_padding_helper_makes_rows_without_real_tokens() -> None:
    batch = blank(make_micro_batch([0, 1])[0])
    assert (batch.documents == PADDING_DOCUMENT).all()
    assert torch.from_numpy(batch.cu_seqlens).diff().min() >= 0
