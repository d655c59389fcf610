"""All that knows DeepSpeed: the two engines, where their state lies, how they reduce, clip and are
compiled, and what is changed in DeepSpeed.

Comes in: two networks and a configuration. Goes out: two engines that step together, and their
state as plain tensors.
"""

__all__ = [
    "clipping",
    "clock",
    "communication",
    "compatibility",
    "engine",
    "engines",
    "fragments",
    "updates",
]
