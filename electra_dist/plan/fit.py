"""Which micro-batch, ZeRO stage and checkpointing suit given GPUs: all that fit, the fastest first.

Comes in: `Costs`. Goes out: `Fit`s. Large micro-batches are worth having: the host starts the work
of fewer of them, kernels have more to do at a time, and at stages 2 and 3 less is sent. A stage
above 1 and recomputing are worth it only for what they make fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from electra_dist.config import NETWORKS, Stage, divisors
from electra_dist.plan.costs import SHARING, Costs, StagePlan

#: A forward more for every forward and backward.
_RECOMPUTED = 1 / 3
#: Steps that differ by less are equal: an estimate knows no better.
_EQUAL = 0.02


@dataclass(frozen=True)
class Fit:
    """One way that fits.

    step_seconds   estimated, recomputation included
    """

    micro_rows: int
    stage: int
    activation_checkpointing: bool
    step_seconds: float
    tokens_per_s: float
    needed_bytes: float

    @property
    def overrides(self) -> tuple[str, ...]:
        """What to set."""
        checkpointing = str(self.activation_checkpointing).lower()
        return (
            f"train.micro_rows={self.micro_rows}",
            f"zero.stage={self.stage}",
            f"train.activation_checkpointing={checkpointing}",
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"overrides": list(self.overrides)}


def fits(costs: Costs) -> list[Fit]:
    """All that fit, the fastest first; among equals the largest micro-batch, then the lowest stage.

    Empty where nothing fits, or where the memory is not known.
    """
    found = []
    for micro_rows in divisors(costs.config.train.global_rows // costs.world):
        found += _try(costs, micro_rows)
    fastest = min((fit.step_seconds for fit in found), default=0.0)

    def rank(fit: Fit) -> tuple[int, int, int]:
        slower = int((fit.step_seconds / fastest - 1) / _EQUAL)
        return slower, -fit.micro_rows, fit.stage

    return sorted(found, key=rank)


def _try(costs: Costs, micro_rows: int) -> list[Fit]:
    found = []
    for recompute in (False, True):
        train = costs.config.train.model_copy(
            update={"micro_rows": micro_rows, "activation_checkpointing": recompute}
        )
        changed = replace(costs, config=costs.config.model_copy(update={"train": train}))
        for stage in SHARING:
            planned = changed.stage(dict.fromkeys(NETWORKS, stage))
            if planned.fits and not planned.problem:
                found.append(_fit(changed, micro_rows, stage, recompute, planned))
    return found


def _fit(costs: Costs, micro_rows: int, stage: Stage, recompute: bool, planned: StagePlan) -> Fit:
    seconds = planned.step_seconds
    if recompute:
        # The host's part is not what a step of so many rows waits for.
        seconds += _RECOMPUTED * costs.busy_seconds
    return Fit(
        micro_rows=micro_rows,
        stage=stage.number,
        activation_checkpointing=recompute,
        step_seconds=seconds,
        tokens_per_s=costs.step_tokens / seconds,
        needed_bytes=planned.needed_bytes,
    )
