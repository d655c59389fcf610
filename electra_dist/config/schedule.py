"""The learning rate as a pure function of the step:
warm-up, then linear, cosine or stable-then-linear decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from electra_dist.config.training import OptimConfig, Schedule


def _linear(done: float) -> float:
    return 1 - done


def _cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


#: `optim.schedule` -> what is left of the peak when `done` (0 to 1) of the decay has passed.
DECAYS: dict[Schedule, Callable[[float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "wsd": _linear,
}


def decay_start(steps: int, optim: OptimConfig) -> int:
    """The step (from 0, of `steps`) at which the rate begins to fall."""
    if optim.schedule == "wsd" and optim.decay_steps is not None:
        return steps - optim.decay_steps
    return optim.warmup_steps


def lr_factor(step: int, steps: int, optim: OptimConfig) -> float:
    """Fraction of the peak learning rate at `step` (from 0) of `steps`.

    The warm-up rises linearly and reaches the peak at step `warmup_steps`; the decay ends at
    `final_lr_fraction` after the last step.
    """
    if step < optim.warmup_steps:
        return (step + 1) / (optim.warmup_steps + 1)
    start = decay_start(steps, optim)
    done = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
    left = DECAYS[optim.schedule](done)
    return optim.final_lr_fraction + (1 - optim.final_lr_fraction) * left
