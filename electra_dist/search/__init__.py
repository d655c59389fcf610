"""Search for the numbers of a training: many trials, each with other numbers, chosen by what those
before it gave.

Comes in: what is varied (`space`), and a training. Goes out: a folder with the study (SQLite), the
log of each trial, the best model or the runs, and pictures. Any number of processes may work on one
study; one that died leaves a trial that another repeats. The search itself is Optuna's: TPE (arXiv
1907.10902), and pruning by the median of earlier trials.
"""

__all__ = ["finetuning", "pretraining", "report", "space", "study"]
