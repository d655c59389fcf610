"""The training library: engines, step, loop, checkpoints, tracking. `run.train` is the way in."""
