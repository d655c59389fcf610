"""What goes on around the steps: sections `checkpoint`, `validation`, `tracking`, `guard` and
`watchdog`.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from electra_dist.config.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)


class CheckpointConfig(Section):
    """When the state is saved; an interruption and the end of the run always save."""

    every: PositiveInt = 1000
    """Steps between two checkpoints."""
    keep: PositiveInt = 3
    """Newest checkpoints kept; older ones are removed after a new one is whole.
    The newest healthy one is never removed.
    """
    milestones_every: PositiveInt | None = None
    """Checkpoints whose step is a multiple of this are kept for good, beside the `keep` newest."""
    keep_best: bool | str = False
    """Keep the checkpoint of the best validation too, next to the `keep` newest: true goes by
    `validation.stop_metric`, a name by that held-out metric. Where no checkpoint is due at the best
    validation, one is saved there.
    """
    asynchronous: bool = True
    """Copy the state to memory and write it in the background while training goes on;
    false waits for the disk.
    """


class ValidationConfig(Section):
    """Losses on the held-out split."""

    every: NonNegativeInt = 1000
    """Steps between two validations; 0 turns them off (the end of the run still has one)."""
    rows: PositiveInt = 512
    """Rows of one validation at most; always the same ones, with the same masks."""
    evaluate_every: PositiveInt | None = None
    """Steps between two full evaluations of both networks on the same rows, as `electra-dist
    evaluate` gives them, into RUN/evaluations. A validation is part of each. Default: none.
    """
    stop_metric: str = "loss/generator"
    """Held-out metric that early stopping and the best checkpoint go by, such as
    loss/discriminator or discriminator/auc. The generator's loss is measured on the same masks
    throughout; what the discriminator is judged on changes with the generator.
    """
    patience: PositiveInt | None = None
    """End the run after so many validations in a row without an improvement. Default: never."""
    min_improvement: NonNegativeFloat = 0.0
    """What `stop_metric` must be better by, in its own unit, to count as an improvement."""


def _words(command: object) -> object:
    if isinstance(command, str):
        return shlex.split(command)
    return command


#: What can mirror the metrics; `electra_dist.tracking.sinks` opens each.
Sink = Literal["wandb", "tensorboard"]


#: Rules of health that can be left out; `electra_dist.health` has them.
HealthRule = Literal[
    "discriminator-collapse",
    "generator-too-strong",
    "generator-not-learning",
    "overfitting",
    "loss-not-finite",
    "overflow",
    "update-ratio",
    "off-reference",
    "data-stall",
    "straggler",
    "slowing-down",
    "below-plan",
    "checkpoint-stall",
    "padding",
]


class TrackingConfig(Section):
    """Metrics: metrics.jsonl always, W&B and TensorBoard next to it."""

    every: PositiveInt = 10
    """Steps between two logged ones."""
    samples_every: NonNegativeInt | None = None
    """Steps between two samples for people: a few held-out passages with what both networks made of
    them, into RUN/samples. Default: at each validation; 0 turns them off.
    """
    sinks: tuple[Sink, ...] = ("wandb",)
    """What mirrors metrics.jsonl: wandb, tensorboard (event files in the run directory), both, or
    nothing: [].
    """
    wandb: Literal["online", "offline", "disabled"] = "offline"
    """offline writes files in the run directory, which `electra-dist wandb sync` brings to the
    server.
    WANDB_MODE counts where it is more private.
    """
    project: str = "electra-dist"
    """W&B project."""
    entity: str | None = None
    """W&B user or team. Default: that of the login."""
    tags: tuple[str, ...] = ()
    """Tags of the W&B run."""
    health: bool = True
    """Judge each logged row by the rules of [health](health.md); what they find is said, written to
    metrics.jsonl and sent to W&B.
    """
    health_ignore: tuple[HealthRule, ...] = ()
    """Rules of health that are left out."""
    group: str | None = None
    """Group of the W&B run. Default: the name of the sweep that it belongs to, else none."""
    job_type: str = "train"
    """Job type of the W&B run."""
    notes: str | None = None
    """Notes of the W&B run: why it was started."""
    artifacts: Literal["none", "reference"] = "none"
    """reference tells W&B where each healthy checkpoint and the dataset lie, with their paths or
    URLs; nothing of them is uploaded.
    """
    on_event: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Command that is started when the run starts, resumes, rolls back, is interrupted, hangs,
    fails, diverges or finishes, and when a finding of health begins or is over: a list of words, or
    one line that is split as a shell would; it is never given to a shell. Run, event, reason, step
    and rule stand in its environment (ELECTRA_DIST_RUN, _NAME, _EVENT, _REASON, _STEP, _RULE).
    """
    event_seconds: PositiveFloat = 30.0
    """The command is killed after that long."""


class GuardConfig(Section):
    """Divergence: what counts as one, and how often the run goes back
    to a healthy checkpoint and past the rows.
    """

    enabled: bool = True
    """Watch skipped steps and losses; roll back when they say that training diverged."""
    max_skips: PositiveInt = 10
    """Steps in a row with a gradient that is not finite. With fp16,
    the halvings of the first loss scale come on top.
    """
    max_loss_factor: Annotated[float, Field(gt=1)] = 10.0
    """A step's loss above this many times that of a uniform guess (ln V for the generator, ln 2 for
    the discriminator) is a spike, whatever was before.
    """
    spike_deviations: PositiveFloat = 10.0
    """A step's loss is a spike when it lies this many robust standard deviations (1.4826 times the
    median absolute deviation, at least 2% of the median) above the median of the last `window`
    steps.
    """
    spike_steps: PositiveInt = 5
    """Spikes in a row that make a divergence; one alone is a hard batch."""
    window: Annotated[int, Field(ge=16)] = 128
    """Steps that the median is taken over;
    before a quarter of them is there, only `max_loss_factor` counts.
    """
    margin_steps: NonNegativeInt = 1
    """Steps before the first offending one whose rows are skipped as well:
    its loss shows what the step before did.
    """
    max_rollbacks: NonNegativeInt = 3
    """Rollbacks without a new healthy checkpoint after which the run ends, with exit status 70."""


class WatchdogConfig(Section):
    """Hangs: seconds without a sign of progress after which
    the run is ended with exit status 69.
    """

    enabled: bool = True
    """Watch the ranks from a thread of its own, and end the run when one of them hangs."""
    meet_seconds: PositiveFloat = 180.0
    """For all ranks to meet at the start."""
    start_seconds: PositiveFloat = 1800.0
    """For everything before the first step: imports, checks, networks,
    engines, compilation, loading a checkpoint.
    """
    step_seconds: PositiveFloat | None = None
    """For one step. Default: 30 times the median of the measured steps, at least 300;
    1800 until they are measured.
    """
    data_seconds: PositiveFloat = 600.0
    """For the next step's rows to be read."""
    checkpoint_seconds: PositiveFloat = 1800.0
    """For one checkpoint."""
    validation_seconds: PositiveFloat = 3600.0
    """For one validation."""
