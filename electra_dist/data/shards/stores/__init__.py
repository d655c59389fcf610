"""Stores that are no file system: files and parts of them by URL, and what a node keeps of them.

Comes in: a URL, and a folder with a bound. Goes out: bytes, held against a SHA-256 where they are a
whole file; the blocks of shards are checked by whoever asked for them.
"""

__all__ = ["cache", "remote"]
