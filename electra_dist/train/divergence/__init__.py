"""Divergence: whether training has diverged, and the way back when it has (DESIGN D11).

Comes in: the totals of every step. Goes out: an `Incident`, whether a checkpoint is healthy, and a
`Rollback`.

`signals` brings the losses to the host a step late, `guard` judges them, `health` is what the
trainer asks, `rollback` decides where to go on from and records it.
"""

__all__ = ["health", "rollback"]
