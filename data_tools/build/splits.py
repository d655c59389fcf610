"""Which documents are held out: those whose split hash is low.

The rule looks at the corpus as a whole, and at nothing else: neither at workers nor at parts.

1. A document's split hash is 48 bits of a hash of its text, the same under every seed. All pieces
   of a document have that of the document.
2. With `validation` F, documents whose split hash is below F * 2**48 are held out.
3. When these are fewer than `HELD_OUT` different ones, the `HELD_OUT` with the lowest hashes are
   held out, but never more than half of the different documents.
4. With F = 0 none is.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable

#: Documents that are held out at least.
HELD_OUT = 20
#: Lowest split hashes of a part of the corpus that the rule needs to know: with fewer than that,
#: they are all there are.
LOWEST = 2 * HELD_OUT
SPLIT_HASHES = 2**48


def split_hash(name: bytes) -> int:
    """The split hash of the document whose digest is `name`."""
    digest = hashlib.blake2b(name, digest_size=6, person=b"split").digest()
    return int.from_bytes(digest, "little")


def bound_of(validation: float) -> int:
    """Split hashes below it are held out, whatever else there is."""
    return math.ceil(validation * SPLIT_HASHES)


def lowest(hashes: Iterable[int]) -> list[int]:
    """The `LOWEST` smallest different ones, in order."""
    return heapq.nsmallest(LOWEST, set(hashes))


def held_out_below(validation: float, lowest_hashes: list[int]) -> int:
    """Documents with split hashes below it are held out; `lowest_hashes` is of the whole corpus."""
    bound = bound_of(validation)
    least = min(HELD_OUT, len(lowest_hashes) // 2)
    if validation and least:
        bound = max(bound, lowest_hashes[least - 1] + 1)
    return bound
