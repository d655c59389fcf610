"""Text to shards at any size: encode, merge, shuffle, write, publish; each step kept, so that the
same command goes on after any death.

Comes in: files of text and a tokenizer. Goes out: a folder of shards, whole or absent, whose bytes
depend on the input and the options only: not on the number of workers or nodes, nor on how often it
was interrupted. `shards` has the steps in order.
"""

from data_tools.build.add import add_to_shards
from data_tools.build.options import BuildOptions, BuildStats, PartStats
from data_tools.build.parts import build_part, merge_parts
from data_tools.build.shards import build_shards

__all__ = [
    "BuildOptions",
    "BuildStats",
    "PartStats",
    "add_to_shards",
    "build_part",
    "build_shards",
    "merge_parts",
]
