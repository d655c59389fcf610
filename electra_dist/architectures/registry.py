"""The architectures by name: what `model.architecture` may be."""

from __future__ import annotations

from electra_dist.architectures.electra import ELECTRA
from electra_dist.architectures.interface import Architecture

#: The registration of each; the key is its name.
ARCHITECTURES: dict[str, Architecture] = {ELECTRA.name: ELECTRA}


def find_architecture(name: str) -> Architecture:
    """The architecture of that name, which the configuration has found to be registered."""
    return ARCHITECTURES[name]
