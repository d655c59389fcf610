"""The processes of a run, and where they stand: ranks, the process group, devices, signs of life.

Comes in: the environment that torchrun, Slurm or a shell made. Goes out: a `World`, and collectives
over it. Of all that trains here nothing is known. `signs`, `processes`, `early` and `ending` need
no torch.
"""

__all__ = [
    "channel",
    "collectives",
    "determinism",
    "early",
    "ending",
    "group",
    "hardware",
    "meeting",
    "processes",
    "signs",
    "world",
]
