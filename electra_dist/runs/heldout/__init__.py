"""What a run makes of its held-out rows, read without torch: which validation is the best and
whether the run has stopped early (`best`), samples for people (`samples`), full evaluations
(`evaluations`).

Comes in: a run directory. Goes out: what stands there, typed. `electra_dist.train.heldout` computes
it.
"""

__all__ = ["best", "evaluations", "leftovers", "samples"]
