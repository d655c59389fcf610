"""ELECTRA, which is BERT's encoder: learned positions, post-LayerNorm layers, GELU.

`costs` needs no torch; `layers` and `names` are loaded when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from electra_dist.architectures.electra import costs
from electra_dist.architectures.interface import Architecture

if TYPE_CHECKING:
    from electra_dist.architectures.layers import LayerPart
    from electra_dist.architectures.names import NamesPart

__all__ = ["ELECTRA", "costs", "layers", "names"]


def _layers() -> LayerPart:
    from electra_dist.architectures.electra import layers

    return layers


def _names() -> NamesPart:
    from electra_dist.architectures.electra import names

    return names


ELECTRA = Architecture("electra", costs, _layers, _names)
