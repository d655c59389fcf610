"""What is cheap on a CPU: dropout masks, and computing elementwise results again instead of keeping them.

PyTorch draws one Bernoulli number an element on a CPU, which costs as much as a quarter of a small model's matrix
products; compiled code draws them one by one as well. Here a mask is a pure function of a seed, which is drawn from
PyTorch's default generator: so compiled code may neither merge two calls nor draw anew where a layer is recomputed.

    not compiled  64 bits of a fast generator are four 16-bit numbers, compared with the keep probability
    compiled      a hash of the seed and the element's index, inside the kernel that reads the mask: never in memory

The keep probability is a multiple of 2**-16; the output is scaled by the probability that was used, so its expectation
is exact. On a GPU, PyTorch's own dropout is used, which the compiler fuses into its neighbours.
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


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """`x` with each element set to zero with `probability` (in [0, 1)), the others scaled to the same expectation."""
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    return recomputed(_dropped, x, draw(x, probability), probability)


def _dropped(x: Tensor, drawn: Tensor, probability: float) -> Tensor:
    return x * drawn_mask(x, drawn, probability) * mask_scale(probability)


def draw(like: Tensor, probability: float) -> Tensor:
    """What a new mask of the shape of `like` is made of: where the code is compiled its seed, elsewhere itself."""
    seed = torch.randint(_SEEDS, ())
    return seed if torch.compiler.is_compiling() else generated_mask(like, seed, _kept_levels(probability))


def drawn_mask(like: Tensor, drawn: Tensor, probability: float) -> Tensor:
    """The mask of the shape of `like` (CPU) from `draw`: bool, false with `probability`."""
    return hashed_mask(like, drawn, _kept_levels(probability)) if torch.compiler.is_compiling() else drawn


def mask_scale(probability: float) -> float:
    """What keeps the expectation where a mask of `drawn_mask` was applied."""
    return _LEVELS / _kept_levels(probability)


def recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """`function(*inputs)`, an elementwise result, or a matrix product that alone reads one.

    On a CPU the elementwise result is not kept for the backward but computed again where the backward needs it (and the
    product is not: recomputing ends at the last saved tensor, its input). On a GPU the compiler decides what to keep.
    """
    if inputs[0].device.type != "cpu":
        return function(*inputs)
    out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def _kept_levels(probability: float) -> int:
    """How many of the 2**16 numbers keep an element: at least one."""
    return max(round((1.0 - probability) * _LEVELS), 1)


def generated_mask(like: Tensor, seed: Tensor, kept: int) -> Tensor:
    """Bool tensor of the shape of `like`, on the CPU; each element is true with probability `kept` / 2**16."""
    words = np.random.SFC64(int(seed)).random_raw(-(-like.numel() // _NUMBERS_A_WORD))
    numbers = torch.from_numpy(words.view(np.int16))[: like.numel()].view(like.shape)
    return numbers < kept - _LEVELS // 2


def hashed_mask(like: Tensor, seed: Tensor, kept: int) -> Tensor:
    """The same by elementwise operations on 32-bit integers, which the compiler makes part of its vectorised kernels.

    The index, in a sequence of which the seed gives step and start, goes through the rounds of the mixer that matter to
    the highest bits (`sampling.MIX_1`), and those are compared. Indices wrap around at 2**32.
    """
    step, start = ((seed >> 32) | 1).int(), (seed & 0xFFFFFFFF).int()  # an odd step: no two indices meet
    x = torch.arange(like.numel(), dtype=torch.int32).view(like.shape) * step + start
    x = (x ^ ((x >> 16) & 0xFFFF)) * MIX_1  # the masks undo the sign that a shift to the right repeats
    x = (x ^ ((x >> 15) & 0x1FFFF)) * MIX_2
    return x < kept * 2**16 - 2**31
