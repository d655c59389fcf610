"""What is cheap on a CPU: dropout masks, and computing elementwise results again instead of keeping
them.

PyTorch draws one Bernoulli number an element on a CPU, which costs as much as a quarter of a small
model's matrix products; compiled code draws them one by one as well. Here a mask is a pure function
of a seed, which is drawn from PyTorch's default generator: so compiled code may neither merge two
calls nor draw anew where a layer is recomputed.

    not compiled  64 bits of a fast generator are four 16-bit numbers, compared with the keep
                  probability
    compiled      a hash of the seed and the element's index, inside the kernel that reads the mask:
                  never in memory

The keep probability is a multiple of 2**-16; the output is scaled by the probability that was used,
so its expectation is exact. On a GPU, PyTorch's own dropout is used, which the compiler fuses into
its neighbours. Our attention kernel has a hash of its own (`kernels.hashing`) for a seed of
`draw_seed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from electra_dist.model.sampling import MIX_1, MIX_2

_LEVELS = 2**16
_NUMBERS_A_WORD = 4  # 16-bit ones in one of 64 bits
_SEEDS = 2**62
#: Of the golden ratio, in 32 and 64 bits, as signed numbers: neighbours come to lie far apart.
_STRIDE = 0x9E3779B9 - 2**32
_SPREAD = 0x9E3779B97F4A7C15 - 2**64


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """`x` with each element set to zero with `probability` (in [0, 1)),
    the others scaled to the same expectation.
    """
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    drawn = draw(x, probability)
    if torch.compiler.is_compiling():
        return recomputed(_dropped, x, drawn, probability)  # or the compiler might keep the mask
    return _dropped(x, drawn, probability)


def _dropped(x: Tensor, drawn: Tensor, probability: float) -> Tensor:
    return x * drawn_mask(x, drawn, probability) * mask_scale(probability)


def draw(like: Tensor, probability: float) -> Tensor:
    """What a new mask of the shape of `like` is made of:
    where the code is compiled its seed, elsewhere itself.
    """
    seed = draw_seed(like.device)
    if torch.compiler.is_compiling():
        return seed
    return generated_mask(like, seed, kept_levels(probability))


def draw_seed(device: torch.device) -> Tensor:
    """() int64 on `device`, from its default generator:
    no wait for a GPU, and the same where a layer is recomputed.
    """
    return torch.randint(_SEEDS, (), device=device)


def drawn_mask(like: Tensor, drawn: Tensor, probability: float) -> Tensor:
    """The mask of the shape of `like` (CPU) from `draw`: bool, false with `probability`."""
    if torch.compiler.is_compiling():
        return hashed_mask(like, drawn, kept_levels(probability))
    return drawn


def mask_scale(probability: float) -> float:
    """What keeps the expectation where a mask of `drawn_mask` was applied."""
    return _LEVELS / kept_levels(probability)


def recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """`function(*inputs)`, an elementwise result, or a matrix product that alone reads one.

    On a CPU the elementwise result is not kept for the backward but computed again where the
    backward needs it (and the product is not: recomputing ends at the last saved tensor, its
    input). On a GPU the compiler decides what to keep.
    """
    if inputs[0].device.type != "cpu":
        return function(*inputs)
    out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def kept_levels(probability: float) -> int:
    """How many of the 2**16 numbers keep an element: at least one."""
    return max(round((1.0 - probability) * _LEVELS), 1)


def generated_mask(like: Tensor, seed: Tensor, kept: int) -> Tensor:
    """Bool tensor of the shape of `like`, on the CPU;
    each element is true with probability `kept` / 2**16.
    """
    words = np.random.SFC64(int(seed)).random_raw(-(-like.numel() // _NUMBERS_A_WORD))
    numbers = torch.from_numpy(words.view(np.int16))[: like.numel()].view(like.shape)
    # not `<`: where all are kept, the number would not be of 16 bits
    return numbers <= kept - 1 - _LEVELS // 2


def hashed_mask(like: Tensor, seed: Tensor, kept: int) -> Tensor:
    """The same by elementwise operations on 32-bit integers, which the compiler makes part of its
    vectorised kernels.

    The index goes through multiplications and shifts, as in `sampling.hash_bits`, with half of the
    seed before each of the last two rounds; the highest bits of the result are compared. Indices
    wrap around at 2**32.
    """
    seed = seed * _SPREAD
    seed = seed ^ (seed >> 32)
    low = (seed & 0xFFFFFFFF).int()
    high = (seed >> 32).int()
    x = (torch.arange(like.numel(), dtype=torch.int32).view(like.shape) ^ low) * _STRIDE
    x = (x ^ ((x >> 16) & 0xFFFF)) * MIX_1  # `&` undoes the sign that a shift to the right repeats
    x = (x ^ ((x >> 15) & 0x1FFFF) ^ high) * MIX_2
    return x <= kept * 2**16 - 1 - 2**31
