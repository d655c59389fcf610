"""The watchdog: who of the ranks hangs, where it stands, and how the run ends then.

Comes in: signs of life of all ranks. Goes out: a word to all of them, and an end where there would
be none.
"""

__all__ = ["failures", "hang", "watchdog"]
