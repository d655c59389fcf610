"""What a curve may be drawn over: steps, real tokens, FLOPs, hours.

Comes in: a `LoadedRun`. Goes out: the place of every row on each axis, NaN where it is not known.

FLOPs are those of the model (`plan.step_flops`): forward and backward, no recomputation. A document
is taken to be as long as a row, so that the number does not depend on whether the shards are here:
attention counts at its most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from electra_dist import plan
from electra_dist.report.loading import Column, LoadedRun
from electra_dist.runs import metrics

_SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True)
class Axis:
    """One way to lay out the rows."""

    key: str
    label: str


STEPS = Axis("steps", "optimizer steps")
TOKENS = Axis("tokens", "real tokens")
FLOPS = Axis("flops", "model FLOPs")
HOURS = Axis("hours", "hours of wall clock")
AXES = (STEPS, TOKENS, FLOPS, HOURS)


@dataclass(frozen=True)
class Places:
    """Where a run is at the steps of its training rows, on every axis, from its first step on."""

    steps: Column
    of: dict[str, Column]

    def at(self, axis: Axis, steps: Column) -> Column:
        """The places of `steps`: on a line between those of the rows around them; NaN after the
        last row, and where nothing is known.
        """
        if axis == STEPS:
            return steps.astype(np.float64)
        known = self.of[axis.key]
        defined = ~np.isnan(known)
        if not defined.any():
            return np.full(len(steps), math.nan)
        return np.interp(steps, self.steps[defined], known[defined], right=math.nan)


def places_of(loaded: LoadedRun) -> Places:
    """The places of a run; step 0 is 0 everywhere, unless the run began as a branch of another."""
    rows = loaded.trained
    steps = rows.steps
    tokens = rows.column(metrics.REAL_TOKENS.name)
    hours = _hours(loaded)
    if loaded.facts.branched_from is None and (not len(steps) or steps[0] > 0):
        steps = np.append(0.0, steps)
        tokens = np.append(0.0, tokens)
        hours = np.append(0.0, hours)
    flops = tokens * flops_per_token(loaded)
    return Places(steps, {TOKENS.key: tokens, FLOPS.key: flops, HOURS.key: hours})


def flops_per_token(loaded: LoadedRun) -> float:
    """Model FLOPs of a real token; NaN where networks or vocabulary are not known."""
    config = loaded.config
    vocab_size = loaded.known.vocab_size
    if config is None or vocab_size is None:
        return math.nan
    length = config.data.row_length
    masked = math.ceil(config.data.mask_fraction * length)
    return plan.step_flops(config, vocab_size, length, length * length, masked) / length


def has_clock(loaded: LoadedRun) -> bool:
    """Whether the rows know when they were made."""
    return metrics.WALL_CLOCK.name in loaded.trained.columns


def _hours(loaded: LoadedRun) -> Column:
    """Hours since step 0 at every training row.

    Where rows know when they were made, pauses between two starts are part of it. Before the first
    such row, and in runs that have none, it is the time of the steps alone.
    """
    rows = loaded.trained
    clock = rows.column(metrics.WALL_CLOCK.name)
    between = np.diff(rows.steps, prepend=0.0)
    taken = between * rows.column(metrics.STEP_SECONDS.name)
    passed = np.cumsum(np.nan_to_num(taken))
    if np.isnan(taken).all():
        passed = np.full(len(taken), math.nan)
    timed = np.flatnonzero(~np.isnan(clock))
    if len(timed):
        first = timed[0]
        begin = np.nan_to_num(passed[first])
        passed = np.append(passed[:first], begin + clock[first:] - clock[first])
    return _never_back(passed) / _SECONDS_AN_HOUR


def _never_back(values: Column) -> Column:
    """A clock that was set back stands still; NaN stays."""
    highest = np.fmax.accumulate(values)
    return np.where(np.isnan(values), math.nan, highest)
