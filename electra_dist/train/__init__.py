"""The training library: engines, step, loop, checkpoints, tracking. `run.train` is the way in."""

__all__ = ["initial", "run", "step", "trainer", "window"]
