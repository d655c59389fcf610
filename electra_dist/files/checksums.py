"""Checksums of files: SHA-256 of an open file, read piece by piece.

Comes in: a descriptor. Goes out: the digest as hexadecimal text; the position in the file stays as
it is, so that others may read it meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

_CHUNK = 4 << 20


def sha256_of(descriptor: int, size: int | None = None, told: Callable[[int], object] = int) -> str:
    """SHA-256 of the first `size` bytes of an open regular file (default: all of it).

    `told` hears the bytes of each piece. A file that ends before `size` gives the digest of what is
    there. Raises `OSError`.
    """
    digest = hashlib.sha256()
    if size is None:
        size = os.fstat(descriptor).st_size
    buffer = memoryview(bytearray(min(_CHUNK, size)))
    offset = 0
    while offset < size:
        count = os.preadv(descriptor, [buffer[: size - offset]], offset)
        if not count:
            break
        digest.update(buffer[:count])
        offset += count
        told(count)
    return digest.hexdigest()
