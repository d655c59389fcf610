"""Held-out rows during real trainings on gloo ranks: the early stop, the best checkpoint, full
evaluations and samples, over interruptions, other world sizes and a rollback.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from electra_dist import config as configuration
from electra_dist.checkpoint.networks import load_networks
from electra_dist.data.sources import open_data
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import deal, validation_rows
from electra_dist.evaluate import evaluate_run
from electra_dist.model.inputs import to_device
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import best_step
from electra_dist.runs.heldout.evaluations import evaluated_steps, read_evaluation
from electra_dist.runs.heldout.samples import SamplePassage, read_samples, sampled_steps
from launcher.status import status
from tests.support.processes import run_ranks

CONFIG = """
run: {{dir: '{runs}', name: r}}
data: {{shards: '{shards}', row_length: 64, streams: 4}}
model:
  embedding_size: 32
  initializer_range: 0.2
  generator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  discriminator: {{layers: 1, hidden_size: 32, heads: 2, ffn_size: 64}}
  max_positions: 64
train: {{steps: 24, global_rows: 8, micro_rows: 2, device: cpu}}
optim: {{lr: 1e-3, warmup_steps: 2}}
zero: {{persistence_threshold: 0}}
precision: {{mode: fp32}}
checkpoint: {{every: 6, keep: 4}}
validation: {{every: 3, rows: 11, evaluate_every: 6, patience: 3, min_improvement: 10}}
tracking: {{every: 1, wandb: disabled, on_event: ['{hook}']}}
guard: {{window: 16}}
"""
HOOK = '#!/bin/sh\necho "$ELECTRA_DIST_EVENT $ELECTRA_DIST_STEP $ELECTRA_DIST_REASON" >> {told}\n'
#: Nothing improves by 10 nats, so that patience ends three validations after that of step 0.
STOP = 9


def trained(
    world: None,
    config: str,
    overrides: list[str],
    interrupt_at: int | None = None,
    poison: int | None = None,
    scripted: dict[str, list[float]] | None = None,
) -> str:
    """One start of training as this rank; how it ended.

    `poison` makes the update of that step of data ten thousand times too large; `scripted` is what
    validations after these steps give as the loss of the generator, each time that one is reached.
    """
    from electra_dist.evaluate.in_training import EvaluatorInTraining
    from electra_dist.train import run, trainer
    from electra_dist.train.heldout.validation import Validation

    rate, take, losses = trainer.lr_factor, trainer.Trainer._take_step, Validation.losses
    taken = [0]

    def take_marked(self: Any, step: Any, state: Any) -> None:
        taken[0] = state.drawn - 1
        if step.index == interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
        take(self, step, state)

    def wild_rate(step: int, steps: int, optim: Any) -> float:
        return rate(step, steps, optim) * (1e4 if taken[0] == poison else 1)

    def scripted_losses(self: Any, step: int, interruption: Any) -> Any:
        found = losses(self, step, interruption)
        if found is not None and scripted and str(step) in scripted:
            found["validation/loss/generator"] = scripted[str(step)].pop(0)
        return found

    trainer.Trainer._take_step = take_marked  # type: ignore[method-assign]
    trainer.lr_factor = wild_rate
    Validation.losses = scripted_losses  # type: ignore[method-assign]
    return run.train(
        configuration.load(Path(config), overrides),
        dict(os.environ),
        evaluator=EvaluatorInTraining(),
    ).value


def make_place(folder: Path, shards: Path) -> Path:
    hook = folder / "hook.sh"
    hook.write_text(HOOK.format(told=folder / "told"))
    hook.chmod(0o755)
    text = CONFIG.format(runs=folder / "runs", shards=shards, hook=hook)
    (folder / "config.yaml").write_text(text)
    return folder


def start(place: Path, name: str, *overrides: str, ranks: int = 1, **arguments: Any) -> str:
    where = {"config": str(place / "config.yaml"), "overrides": [f"run.name={name}", *overrides]}
    ended: str = run_ranks(trained, ranks, meet=False, timeout=400, **where, **arguments)[0]
    return ended


def run_of(place: Path, name: str) -> RunDir:
    return RunDir(place / "runs" / name)


def losses(run: RunDir) -> dict[str, float]:
    """The losses of training and of the held-out rows, by step and name."""
    return {
        f"{row['step']} {name}": value
        for row in run.read_metrics()
        for name, value in row.items()
        if "loss/" in name
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Path:
    """Run `straight`: two ranks at stage 3 until patience is at an end."""
    folder = make_place(tmp_path_factory.mktemp("heldout"), tiny_shards)
    assert start(folder, "straight", ranks=2) == "finished"
    return folder


# --- early stopping -------------------------------------------------------------------------------


def test_a_run_ends_when_patience_does_and_everybody_knows(place: Path, no_slurm: None) -> None:
    run = run_of(place, "straight")
    assert run.complete_checkpoints() == [6, STOP]
    assert max(row["step"] for row in run.read_metrics()) == STOP
    found = status(run)
    assert found.state == "finished"
    assert found.why == found.stopped_early
    assert str(found.stopped_early).startswith(
        f"stopped early at step {STOP}: validation/loss/generator has not improved by more than 10"
        " in 3 validations"
    )
    assert found.seconds_left is None
    held_out = {
        row["step"]: row["validation/loss/generator"]
        for row in run.read_metrics()
        if "validation/loss/generator" in row
    }
    lowest = min(held_out, key=lambda step: held_out[step])
    assert f"at step {lowest}" in str(found.stopped_early)
    told = (place / "told").read_text()
    assert f"finished {STOP} {found.stopped_early}" in told


def test_interrupted_and_resumed_on_another_world_size_it_ends_the_same(place: Path) -> None:
    assert start(place, "resumed", ranks=2, interrupt_at=7) == "interrupted"
    run = run_of(place, "resumed")
    assert run.complete_checkpoints()[-1] in (7, 8, 9)
    assert start(place, "resumed") == "finished"
    assert run.complete_checkpoints()[-1] == STOP
    assert losses(run) == pytest.approx(losses(run_of(place, "straight")), rel=1e-4)

    # a start of a run that has stopped early trains nothing
    before = run.metrics.read_bytes()
    assert start(place, "resumed") == "finished"
    assert run.metrics.read_bytes() == before
    assert len(run.read_facts().starts) == 2

    # more patience: it goes on from there
    assert start(place, "resumed", "validation.patience=4") == "finished"
    assert run.complete_checkpoints()[-1] == STOP + 3
    assert [row["step"] for row in run.read_metrics()][-1] == STOP + 3


# --- the best checkpoint --------------------------------------------------------------------------


def test_the_best_is_kept_and_after_a_rollback_the_next_best(place: Path) -> None:
    """The best validation is after step 9, where no checkpoint is due. One after step 15 is better,
    and goes with the rollback to step 12, which an update too large in step 17 causes.
    """
    losses = {"3": [3.0], "6": [4.0], "9": [2.0], "12": [2.5], "15": [1.0, 2.6], "18": [2.2, 2.7]}
    losses |= {"21": [2.8], "24": [2.9]}
    overrides = (
        "checkpoint.keep=2",
        "checkpoint.keep_best=true",
        "validation.patience=null",
        "validation.evaluate_every=null",
        "tracking.samples_every=0",
        "guard.margin_steps=4",
    )
    assert start(place, "best", *overrides, poison=16, scripted=losses) == "finished"
    run = run_of(place, "best")
    (back,) = run.read_facts().rollbacks
    assert (back.from_step, back.to_step) == (18, 12)
    held_out = {
        row["step"]: row["validation/loss/generator"]
        for row in run.read_metrics()
        if "validation/loss/generator" in row
    }
    assert (held_out[9], held_out[15], held_out[18]) == (2.0, 2.6, 2.7)
    assert best_step(run) == 9
    assert run.complete_checkpoints()[0] == 9
    assert run.complete_checkpoints()[-1] == 24
    assert not sampled_steps(run)
    assert not evaluated_steps(run)


# --- full evaluations -----------------------------------------------------------------------------


def test_an_evaluation_equals_that_of_the_checkpoint(place: Path) -> None:
    """Two sharded ranks against one process that reads the weights from the disk."""
    run = run_of(place, "straight")
    assert evaluated_steps(run) == [6]
    assert (run.path / "evaluations/step-00000006.png").read_bytes()[:4] == b"\x89PNG"
    found = read_evaluation(run, 6)
    expected = json.loads(json.dumps(evaluate_run(run, step=6).to_dict()))
    assert found["rows"] == 11
    for name in ("seconds", "plot", "passages"):
        found.pop(name)
        expected.pop(name, None)
    found_flat = _flat(found)
    expected_flat = _flat(expected)
    words = {name: value for name, value in expected_flat.items() if not _is_number(value)}
    assert {name: found_flat[name] for name in words} == words
    numbers = {name: value for name, value in expected_flat.items() if name not in words}
    assert numbers.keys() | words.keys() == found_flat.keys()
    assert {name: found_flat[name] for name in numbers} == pytest.approx(
        numbers, rel=2e-3, abs=2e-4
    )
    row = next(row for row in run.read_metrics() if row["step"] == 6)
    assert row["evaluation/discriminator/auc"] == pytest.approx(
        expected["discriminator"]["auc"], abs=1e-4
    )
    others = [row for row in run.read_metrics() if row["step"] != 6]
    assert not any(name.startswith("evaluation/") for row in others for name in row)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        parts = [_flat(value, f"{prefix}{key}.") for key, value in tree.items()]
    elif isinstance(tree, list):
        parts = [_flat(value, f"{prefix}{number}.") for number, value in enumerate(tree)]
    else:
        return {prefix: tree}
    return {name: value for part in parts for name, value in part.items()}


# --- samples --------------------------------------------------------------------------------------


def test_samples_are_what_the_networks_of_the_checkpoint_say(place: Path) -> None:
    """Against plain networks from the disk: softmax over the whole vocabulary, in float64."""
    run = run_of(place, "straight")
    assert sampled_steps(run) == [0, 3, 6, 9]
    samples = read_samples(run, 6)
    assert 1 <= len(samples.passages) <= 8
    config = configuration.load(run.config)
    data = open_data(config)
    generator, discriminator = load_networks(run, config, 6)
    known = _answers(config, data, generator, discriminator)
    tokenizer = Tokenizer.from_file(str(run.tokenizer / "tokenizer.json"))
    for passage in samples.passages:
        _check(passage, known, tokenizer)
    later = read_samples(run, 9)
    assert later != samples
    assert [len(one.pieces) for one in later.passages] == [
        len(one.pieces) for one in samples.passages
    ]
    for one, other in zip(later.passages, samples.passages, strict=True):
        assert [piece.original for piece in one.pieces] == [
            piece.original for piece in other.pieces
        ]


class Answer(NamedTuple):
    """One row, by a plain forward.

    tokens, corrupted  (L,) ids
    proposed           (L,) the generator's probability of the corrupted token, NaN where not masked
    judged             (L,) the discriminator's probability of `replaced`
    """

    tokens: Any
    corrupted: Any
    proposed: Any
    judged: Any


@torch.no_grad()
def _answers(config: Any, data: Any, generator: Any, discriminator: Any) -> list[Answer]:
    rows = validation_rows(data, RowFormat.of(config), config.validation.rows)
    assert rows is not None
    found = []
    for micro_batch in deal(rows, RowFormat.of(config), data.special_tokens, 0, 1):
        batch = to_device(micro_batch, "cpu")
        generated = generator(batch)
        logits = discriminator(
            generated.shared, batch, generated.corrupted, generated.replaced
        ).logits.double()
        odds = generator.logits(batch).double().softmax(dim=-1)
        for row, tokens in enumerate(micro_batch.tokens):
            corrupted = generated.corrupted[row].numpy()
            used = micro_batch.masked_weights[row] > 0
            columns = micro_batch.masked_positions[row][used]
            proposed = np.full(len(tokens), np.nan)
            proposed[columns] = odds[row, columns, corrupted[columns]].numpy()
            judged = (1 / (1 + (-logits[row]).exp())).numpy()
            found.append(Answer(tokens, corrupted, proposed, judged))
    return found


def _check(passage: SamplePassage, known: list[Answer], tokenizer: Tokenizer) -> None:
    """The passage lies in one of the rows, and every number of it is that of the networks."""
    judged = np.array([piece.discriminator_probability for piece in passage.pieces])
    count = len(judged)
    assert 16 <= count <= 64
    answer, first = next(
        (answer, first)
        for answer in known
        for first in range(len(answer.judged) - count + 1)
        if np.allclose(answer.judged[first : first + count], judged, atol=2e-4)
    )
    for at, piece in enumerate(passage.pieces, start=first):
        masked = not np.isnan(answer.proposed[at])
        assert piece.replaced == (answer.tokens[at] != answer.corrupted[at])
        assert tokenizer.decode([int(answer.corrupted[at])]).strip() == piece.text.strip()
        assert (piece.sampled == piece.text) == masked
        assert (piece.original is None) == (piece.generator_probability is None) == (not masked)
        if masked:
            assert piece.generator_probability == pytest.approx(answer.proposed[at], abs=1e-4)
            assert tokenizer.decode([int(answer.tokens[at])]).strip() == str(piece.original).strip()
