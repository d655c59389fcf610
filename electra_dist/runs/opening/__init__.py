"""Opening a run: made new, gone on with, gone on with otherwise, or started from a checkpoint of
another one.

Comes in: a configuration and a run directory. Goes out: a run directory that is this run and no
other, or one error.
"""

__all__ = ["about", "going_on", "revision", "start"]
