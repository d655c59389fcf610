"""How good both networks are on held-out text, of a run or of an exported pair: fp32, no DeepSpeed,
one process or many with the same result.

`subject` and `exported` are what is evaluated. `heldout` runs the networks over a micro-batch and
keeps what each masked and each judged token got; `observer` does so for all rows, on the ranks that
`ranks` opens. `scores` makes numbers of that, `vocabulary` those of the generator as a classifier,
`uncertainty` their standard errors, `sources` all of them for each source of mixed data, `passages`
those to read, `plot` a picture. `run` is the whole, from a path to an `Evaluation`; `in_training`
is the same on the engines of a run that trains.
"""

from electra_dist.console import Progress
from electra_dist.evaluate.run import Evaluation, evaluate, evaluate_pair, evaluate_run

__all__ = [
    "Evaluation",
    "Progress",
    "evaluate",
    "evaluate_pair",
    "evaluate_run",
    "exported",
    "heldout",
    "in_training",
    "passages",
    "plot",
    "ranks",
    "sources",
    "subject",
]
