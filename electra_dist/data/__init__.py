"""Shards to whole training steps, in numpy; knows no torch."""

__all__ = ["masking", "packing", "rows", "skips", "steps", "streams", "validation"]
