"""The training library: engines, step, loop, checkpoints, tracking. `run.train` is the way in."""

__all__ = [
    "agreement",
    "faults",
    "initial",
    "run",
    "state",
    "step",
    "trainer",
    "window",
]
