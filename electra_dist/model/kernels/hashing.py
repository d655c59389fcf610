"""Random bits in Triton that are a pure function of what they belong to: no state, no order of the
draws.

The generator's head draws its noise so (`sampling.py` has the same integers in PyTorch), and
attention its dropout: the forward and the two backward kernels meet the same attention weights in
blocks of different shapes, and each makes the same mask again. The functions work on uint32 of any
shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from electra_dist.model import sampling

jit: Callable[[Callable[..., Any]], Any] = triton.jit

KEY_OFFSET_1 = tl.constexpr(sampling.KEY_OFFSET_1)
KEY_OFFSET_2 = tl.constexpr(sampling.KEY_OFFSET_2)
MIX_1 = tl.constexpr(sampling.MIX_1)
MIX_2 = tl.constexpr(sampling.MIX_2)


@jit
def mix(x: tl.tensor) -> tl.tensor:
    """`sampling._mix`."""
    x = x ^ (x >> 16)
    x = x * MIX_1
    x = x ^ (x >> 15)
    x = x * MIX_2
    return x ^ (x >> 15)


@jit
def key_states(keys: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The two 32-bit halves of the state of 64-bit keys."""
    low = keys.to(tl.uint32)
    high = (keys >> 32).to(tl.uint32)
    return mix(mix(low + KEY_OFFSET_1) ^ high), mix(mix(high + KEY_OFFSET_2) ^ low)


@jit
def head_states(seed_ptr: tl.tensor, head: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """What the masks of one head are made of: two states for its queries and one for its keys."""
    first, second = key_states(tl.load(seed_ptr))
    number = head.to(tl.uint32)
    first = mix(first + number)
    second = mix(second ^ number)
    return first, second, mix(mix(first ^ KEY_OFFSET_2) + second)


@jit
def query_states(
    first: tl.tensor, second: tl.tensor, queries: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """64 bits for each query of a head."""
    numbers = queries.to(tl.uint32)
    return mix(first + numbers), mix(second + numbers)


@jit
def key_state(third: tl.tensor, keys: tl.tensor) -> tl.tensor:
    """32 bits for each key of a head."""
    return mix(third + keys.to(tl.uint32))


@jit
def keeps(first: tl.tensor, second: tl.tensor, third: tl.tensor, threshold: tl.tensor) -> tl.tensor:
    """Whether dropout keeps a weight: the states of its query, the state of its key, broadcast
    against each other.

    True where the hash as a signed number is at most `threshold`. Two multiplications a weight: the
    states are mixed.
    """
    x = (first ^ third) * MIX_1
    x = ((x ^ (x >> 15)) ^ second) * MIX_2
    return x.to(tl.int32, bitcast=True) <= threshold
