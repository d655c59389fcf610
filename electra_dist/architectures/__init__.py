"""Architectures: all that one encoder has of its own, a room for each, registered once.

`interface` says what an architecture is: `costs`, which need no torch, `layers` and `names`.
`registry` has them by name. What every architecture shares stays where it is: attention and
kernels in `model`, the arithmetic of engines and optimizers in `plan`.

Imports no room but the hall: sizes, attention and dropout are handed in.
"""

from electra_dist.architectures.costs import Costs, MicroBatchFacts, Saved, Surroundings
from electra_dist.architectures.interface import Architecture
from electra_dist.architectures.registry import ARCHITECTURES, find_architecture
from electra_dist.architectures.sizes import EncoderSizes, ModelSizes, Network, Shapes, Sharing

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Costs",
    "EncoderSizes",
    "MicroBatchFacts",
    "ModelSizes",
    "Network",
    "Saved",
    "Shapes",
    "Sharing",
    "Surroundings",
    "costs",
    "find_architecture",
    "interface",
    "layers",
    "names",
    "sizes",
]
