"""The live view of runs in a terminal: reads run directories as they grow, and draws them.

Comes in: what a user names, runs or folders of runs. Goes out: frames of text. Needs no torch, so
it works on a login node; nothing of a run is changed.
"""

__all__ = ["gathering", "overview", "show", "views"]
