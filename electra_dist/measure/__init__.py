"""Measurements on the user's own machine: the training step, the memory of tensors, the nodes of a
job.

Comes in: a configuration. Goes out: figures, and what they mean.
"""

__all__ = ["bench", "preflight", "stream", "synthetic"]
