"""A run, seen from outside, without torch: its directory, what lies in it, who trains it.

Comes in: the path of a run directory. Goes out: what stands there, typed; nothing here trains.
"""

__all__ = [
    "directory",
    "ending",
    "facts",
    "heartbeat",
    "hooks",
    "metrics",
    "metrics_log",
    "own_log",
    "progress",
    "rollbacks",
]
