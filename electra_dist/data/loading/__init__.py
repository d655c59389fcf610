"""The loader: whole steps, made ahead by a process of their own, taken from shared memory.

Comes in: shards and a position in them. Goes out: the steps of training, in order.
"""

__all__ = ["loader", "ring"]
