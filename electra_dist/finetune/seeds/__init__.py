"""Training a task with one seed after the other, and what several of them are together.

Comes in: a learner and a recipe. Goes out: weights, the scores of every epoch, curves, and models
that answer together.

    one.py         one seed, from a new head to the weights that are kept
    callbacks.py   while it trains: progress, held-out scores, early stopping, checkpoints
    work.py        the hidden folder that a killed fine-tuning goes on from
    weights.py     weights as a file, and as the folder of a model
    ranks.py       the processes that train together
    curves.py      metrics.jsonl of all seeds, and a picture of it
    mirror.py      the same rows in W&B
    together.py    what the seeds are together, on the held-out examples
    soup.py        averages of weights
    ensemble.py    several folders that answer as one model
"""

__all__ = [
    "callbacks",
    "curves",
    "ensemble",
    "mirror",
    "one",
    "ranks",
    "together",
    "weights",
    "work",
]
