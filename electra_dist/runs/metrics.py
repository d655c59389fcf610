"""The metrics of a run: the one place where a logged number has its name, its unit and its meaning.

Comes in: the registered objectives, which have the numbers of their own. Goes out: `all_metrics`,
from which the rows of `metrics.jsonl`, the lines on the terminal, reports, W&B and the table in
docs/train.md take names, digits and words (`docs/make_metrics.py` writes the table). A new number
is added here, or to its objective, and computed where its sums are (`electra_dist.train.window`) or
where a row is made (`electra_dist.train.logbook`).
"""

from __future__ import annotations

from electra_dist.objectives import HELD_OUT as HELD_OUT
from electra_dist.objectives import Metric as Metric
from electra_dist.objectives import Metrics as Metrics
from electra_dist.objectives import masked_tokens, objectives, replaced_tokens

STEP = Metric("step", "steps", "optimizer steps done", "d")
GENERATOR_LOSS = masked_tokens.LOSS
DISCRIMINATOR_LOSS = replaced_tokens.LOSS
GENERATOR_ACCURACY = masked_tokens.ACCURACY
PRECISION = replaced_tokens.PRECISION
RECALL = replaced_tokens.RECALL
ACCURACY = replaced_tokens.ACCURACY
AUC = replaced_tokens.AUC
REPLACED_FRACTION = replaced_tokens.REPLACED_FRACTION
LEARNING_RATE = Metric(
    "optim/lr", "", "learning rate of the last step, of the common `optim.lr`", ".1e"
)
GENERATOR_NORM = Metric(
    "optim/generator_grad_norm",
    "",
    "norm of the generator's gradient in the last step, before clipping",
)
DISCRIMINATOR_NORM = Metric("optim/discriminator_grad_norm", "", "the same of the discriminator")
SKIPPED_STEPS = Metric(
    "optim/skipped_steps", "steps", "skipped for overflow since the last logged step", "d"
)
TOKENS_PER_SECOND = Metric(
    "speed/real_tokens_per_s",
    "tokens/s",
    "tokens that are no padding, all ranks together",
    ",.0f",
    best="max",
)
MFU = Metric("speed/mfu", "fraction", "model FLOPs utilisation, see below", ".0%", best="max")
STEP_SECONDS = Metric(
    "speed/step_seconds", "seconds", "a step, without validation and saving", best="min"
)
CHECKPOINT_STALL = Metric(
    "speed/checkpoint_stall",
    "fraction",
    "of the time since the last logged step, spent waiting for a checkpoint"
    " ([saving](checkpoints.md#saving-in-the-background))",
)
WALL_CLOCK = Metric(
    "speed/wall_clock",
    "seconds",
    "Unix time at which the row was made, on the clock of rank 0, in whole seconds",
    "d",
    of_clock=True,
)
EPOCH = Metric("data/epoch", "epochs", "passes over the training split", ".2f")
REAL_TOKENS = Metric("data/real_tokens", "tokens", "trained on since the start of the run", ",d")

_OF_THE_RUN = (
    LEARNING_RATE,
    GENERATOR_NORM,
    DISCRIMINATOR_NORM,
    SKIPPED_STEPS,
    TOKENS_PER_SECOND,
    MFU,
    STEP_SECONDS,
    CHECKPOINT_STALL,
    WALL_CLOCK,
    EPOCH,
    REAL_TOKENS,
)


def all_metrics() -> tuple[Metric, ...]:
    """Every logged number, in the order of a row: losses, scores, and those of the run."""
    losses = [objective.loss for objective in objectives()]
    scores = [metric for objective in objectives() for metric in objective.metrics]
    return (STEP, *losses, *scores, *_OF_THE_RUN)
