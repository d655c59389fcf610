"""Disk that a run's checkpoints take:
how large one is, how many lie there at once, how much is still to come.
"""

from __future__ import annotations

from electra_dist.config import Config
from electra_dist.plan.activations import FP32
from electra_dist.plan.sizes import parameters


def checkpoint_bytes(config: Config, vocab_size: int) -> int:
    """Of one checkpoint: the fp32 weights and both moments of Adam; the rest is small."""
    return 3 * FP32 * parameters(config, vocab_size).total


def checkpoints_at_once(config: Config) -> int:
    """The most that lie on the disk: the newest `keep`, the milestones, the best one,
    and the one that is being written.
    """
    every = config.checkpoint.milestones_every
    if every:
        milestones = config.train.steps // every
    else:
        milestones = 0
    best = int(bool(config.checkpoint.keep_best))
    return config.checkpoint.keep + milestones + best + 1


def room_to_come(config: Config, vocab_size: int, there: int) -> int:
    """Bytes that the checkpoints of a run will take beside the `there` whole ones;
    at least those of one.
    """
    return max(1, checkpoints_at_once(config) - there) * checkpoint_bytes(config, vocab_size)
