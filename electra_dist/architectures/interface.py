"""What an architecture is: a name, what it costs, its layers, and its names in `transformers`.

Costs need no torch; layers and names are loaded when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from electra_dist.architectures.costs import Costs

if TYPE_CHECKING:
    from electra_dist.architectures.layers import LayerPart
    from electra_dist.architectures.names import NamesPart


@dataclass(frozen=True)
class Architecture:
    """One architecture, as `model.architecture` names it.

    costs   what it costs
    layers  loads its torch part
    names   loads its names in `transformers`, which need torch too
    """

    name: str
    costs: Costs
    layers: Callable[[], LayerPart]
    names: Callable[[], NamesPart]
