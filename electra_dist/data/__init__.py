"""Shards to whole training steps, in numpy; knows no torch."""

__all__ = [
    "lanes",
    "masking",
    "packing",
    "pool",
    "rows",
    "skips",
    "sources",
    "step_plan",
    "steps",
    "streams",
    "validation",
]
