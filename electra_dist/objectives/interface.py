"""What an objective is: a loss of one network, what it is divided by and weighed with, and the
numbers that are logged of it.

The loss of a step is the sum over the objectives of

    weight * (sum over the step of `loss_sum`) / (the step's count),

over all ranks and micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from electra_dist.config import Config, Network
from electra_dist.objectives.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from electra_dist.objectives.views import Seen

#: What a loss is divided by: a field of `batch.Step`.
Count = Literal["masked_count", "real_count"]


class Tally(NamedTuple):
    """Sums over some steps and all ranks.

    values   those that are one number, by name
    tables   the others
    divisor  the count that the objective's loss is divided by; NaN for none
    """

    values: Mapping[str, float]
    tables: Mapping[str, Tensor]
    divisor: float


@dataclass(frozen=True)
class Objective:
    """One objective.

    name      unique
    network   which one computes its loss, in its forward
    count     what the loss is divided by
    weight    the configuration key that it is weighed with
    called    the loss in a sentence
    choices   a uniform guess has the loss ln(choices), which the guard knows; None: the vocabulary
    loss      the logged mean
    metrics   the other logged numbers, all of which `scores` gives
    total     the name of the loss sum in a checkpoint
    sums      further sums by name, with their shapes; `()` is one number
    loss_sum  (`views.Filled` or `views.Judged`, by the network) -> () fp32, nats, with gradient;
              part of a compiled graph
    observe   the further sums of one micro-batch, fp32, without gradient; part of a compiled graph
    scores    the logged numbers of some steps
    """

    name: str
    network: Network
    count: Count
    weight: str
    called: str
    choices: int | None
    loss: Metric
    metrics: tuple[Metric, ...]
    total: str
    sums: Mapping[str, tuple[int, ...]]
    loss_sum: Callable[[Any], Tensor]
    observe: Callable[[Seen], dict[str, Tensor]]
    scores: Callable[[Tally], dict[Metric, float]]

    def weight_in(self, config: Config) -> float:
        """The value of its key."""
        value: Any = config
        for part in self.weight.split("."):
            value = getattr(value, part)
        return float(value)
