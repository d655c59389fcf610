"""Shapes that follow from a configuration and that data, model and plan must agree on."""

from __future__ import annotations

#: Elements of the weights of a group of layers, unless one layer has more. Smaller groups take the
#: host longer; larger ones leave less of their gathering to hide behind the computation of others.
GROUP_ELEMENTS = 2**25
#: A number of entries is a multiple of this, where it is less than the most that there can be.
SEQUENCE_STEP = 256


def sequence_entries(documents: int, rows: int, documents_per_row: int) -> int:
    """N, the entries of `MicroBatch.cu_seqlens` after the first, for so many documents, paddings
    counted.

    Attention kernels work, and take memory, for each entry, used or not; and few different numbers
    are to be met.

    rows, documents_per_row  B and K; N is B * (K + 1) at most
    """
    rounded = -(-max(documents, 1) // SEQUENCE_STEP) * SEQUENCE_STEP
    return min(rounded, rows * (documents_per_row + 1))


def layers_of_groups(layers: int, elements: int) -> list[int]:
    """How many of so many `layers`, each with so many `elements`,
    the groups have that the engines work on.
    """
    most = max(1, GROUP_ELEMENTS // elements)
    return [min(most, layers - first) for first in range(0, layers, most)]
