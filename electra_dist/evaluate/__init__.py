"""How good both networks of a run are on held-out text: one process, fp32, no DeepSpeed.

`heldout` runs the networks over the rows and keeps what each masked and each judged token got;
`scores` makes numbers of that, `uncertainty` their standard errors, `sources` both for each source
of mixed data, `passages` those to read, `plot` a picture. `run` is the whole, from a run directory
to an `Evaluation`; `in_training` is the same on the engines of a run that trains.
"""

from electra_dist.evaluate.run import Evaluation, Progress, evaluate_run

__all__ = [
    "Evaluation",
    "Progress",
    "evaluate_run",
    "heldout",
    "in_training",
    "passages",
    "plot",
    "sources",
]
