"""The metrics of a run: the one place where a logged number has its name, its unit and its meaning.

Comes in: nothing. Goes out: `METRICS`, from which the rows of `metrics.jsonl`, the lines on the
terminal, reports, W&B and the table in docs/train.md take names, digits and words
(`docs/make_metrics.py` writes the table). A new number is added here, and computed where its sums
are (`electra_dist.train.window`) or where a row is made (`electra_dist.train.logbook`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: One row of `metrics.jsonl` by name; NaN where a number is undefined.
Metrics = dict[str, float | int]

#: Before the name of a metric of the held-out rows.
HELD_OUT = "validation/"


@dataclass(frozen=True)
class Metric:
    """One logged number.

    name      key in metrics.jsonl, W&B and TensorBoard
    unit      of the value; empty for a number without one
    meaning   one line of Markdown
    spec      format specification where people read it
    best      which value of a run its summary keeps
    held_out  measured on the held-out rows as well, as `HELD_OUT` + name
    """

    name: str
    unit: str
    meaning: str
    spec: str = ".3f"
    best: Literal["min", "max", "last"] = "last"
    held_out: bool = False

    @property
    def name_held_out(self) -> str:
        """The name of the same number on the held-out rows."""
        return HELD_OUT + self.name

    def name_of(self, source: str) -> str:
        """The name of the same number of one source of mixed data."""
        return f"{self.name}/{source}"

    def name_held_out_of(self, source: str) -> str:
        """The name of the same number on the held-out rows of one source."""
        return f"{HELD_OUT}{source}/{self.name}"

    def text(self, value: float | None) -> str:
        """`value` as people read it; dashes of the same width where it is undefined."""
        if value is None or math.isnan(value):
            return "-" * len(format(0.0, self.spec))
        return format(value, self.spec)


STEP = Metric("step", "steps", "optimizer steps done", "d")
GENERATOR_LOSS = Metric(
    "loss/generator",
    "nats per masked token",
    "cross-entropy of the generator",
    best="min",
    held_out=True,
)
DISCRIMINATOR_LOSS = Metric(
    "loss/discriminator",
    "nats per real token",
    "binary cross-entropy of the discriminator, before its weight",
    ".4f",
    best="min",
    held_out=True,
)
LOSSES = {"generator": GENERATOR_LOSS, "discriminator": DISCRIMINATOR_LOSS}
GENERATOR_ACCURACY = Metric(
    "generator/accuracy",
    "fraction",
    "masked tokens whose most probable entry is right",
    best="max",
    held_out=True,
)
PRECISION = Metric(
    "discriminator/precision",
    "fraction",
    "of the tokens called replaced (logit above 0), those that are",
    ".2f",
    best="max",
    held_out=True,
)
RECALL = Metric(
    "discriminator/recall",
    "fraction",
    "of the replaced tokens, those called so",
    ".2f",
    best="max",
    held_out=True,
)
ACCURACY = Metric(
    "discriminator/accuracy",
    "fraction",
    'of all real tokens; "always original" already gives 1 - `replaced_fraction`',
    best="max",
    held_out=True,
)
AUC = Metric(
    "discriminator/auc",
    "probability",
    "that a replaced token has a larger logit than an original one; 0.5 is chance",
    best="max",
    held_out=True,
)
REPLACED_FRACTION = Metric(
    "discriminator/replaced_fraction",
    "fraction",
    "real tokens that the generator replaced with another",
    held_out=True,
)
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
EPOCH = Metric("data/epoch", "epochs", "passes over the training split", ".2f")
REAL_TOKENS = Metric("data/real_tokens", "tokens", "trained on since the start of the run", ",d")

METRICS = (
    STEP,
    GENERATOR_LOSS,
    DISCRIMINATOR_LOSS,
    GENERATOR_ACCURACY,
    PRECISION,
    RECALL,
    ACCURACY,
    AUC,
    REPLACED_FRACTION,
    LEARNING_RATE,
    GENERATOR_NORM,
    DISCRIMINATOR_NORM,
    SKIPPED_STEPS,
    TOKENS_PER_SECOND,
    MFU,
    STEP_SECONDS,
    CHECKPOINT_STALL,
    EPOCH,
    REAL_TOKENS,
)
