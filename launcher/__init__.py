"""Starts runs, on this machine or through Slurm, and tells what they do. Never imports torch."""

__all__ = [
    "find",
    "groups",
    "held_out",
    "local",
    "logged",
    "logs",
    "records",
    "status",
    "stop",
]
