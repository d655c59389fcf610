"""Who watches training: the watchdog, which knows who of the ranks hangs, where it stands and how
the run ends then; and the line that lives on the terminal.

Comes in: signs of life of all ranks. Goes out: a word to all of them, and an end where there would
be none; a line for people.
"""

__all__ = ["failures", "hang", "live", "watchdog"]
