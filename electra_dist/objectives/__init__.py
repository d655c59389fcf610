"""Objectives: the losses that the networks are trained with, a module for each, registered once.

`interface` says what an objective is, `registry` has them in order, `views` is what they compute
from, `metric` what a logged number is. The networks compute the loss sums in their forward; the
step weighs them; window, validation, guard and metrics go through the registered ones.

Imports torch only when something is computed, so that the metrics are known without it.
"""

from electra_dist.objectives.interface import Count, Objective, Tally
from electra_dist.objectives.metric import HELD_OUT, Metric, Metrics
from electra_dist.objectives.registry import OBJECTIVES, objectives, objectives_of

__all__ = [
    "HELD_OUT",
    "OBJECTIVES",
    "Count",
    "Metric",
    "Metrics",
    "Objective",
    "Tally",
    "detection",
    "masked_tokens",
    "objectives",
    "objectives_of",
    "replaced_tokens",
    "views",
]
