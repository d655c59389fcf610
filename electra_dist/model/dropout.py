"""What is cheap on a CPU: dropout masks, and computing elementwise results again instead of keeping them.

PyTorch draws one Bernoulli number an element on a CPU, which costs as much as a quarter of a small model's matrix
products; compiled code draws them one by one as well. Here 64 random bits are four 16-bit numbers, about seven times as
fast. The keep probability is therefore a multiple of 2**-16; the output is scaled by the probability that was used, so
its expectation is exact. On a GPU, PyTorch's own dropout is used, which the compiler fuses into its neighbours.

A mask is a pure function of a seed, which is drawn from PyTorch's default generator: so compiled code may neither merge
two calls nor draw anew where a layer is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_LEVELS = 2**16
_NUMBERS_A_WORD = 4  # 16-bit ones in one of 64 bits
_SEEDS = 2**62


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """`x` with each element set to zero with `probability` (in [0, 1)), the others scaled to the same expectation."""
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    return x * drawn_mask(x, probability) * mask_scale(probability)


def drawn_mask(like: Tensor, probability: float) -> Tensor:
    """A new mask of the shape of `like` (CPU): bool, false with `probability`."""
    mask: Tensor = keep_mask(like, torch.randint(_SEEDS, ()), _kept_levels(probability))
    return mask


def mask_scale(probability: float) -> float:
    """What keeps the expectation where a mask of `drawn_mask` was applied."""
    return _LEVELS / _kept_levels(probability)


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, an elementwise result that ends in a matrix product, which alone reads it.

    On a CPU the elementwise result is not kept for the backward but computed again (and the product is not: recomputing
    ends at the last saved tensor, its input). On a GPU the compiler decides what to keep.
    """
    if inputs[0].device.type != "cpu":
        return function(*inputs)
    out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def _kept_levels(probability: float) -> int:
    """How many of the 2**16 numbers keep an element: at least one."""
    return max(round((1.0 - probability) * _LEVELS), 1)


@torch.library.custom_op(
    "electra_dist::keep_mask", mutates_args=()
)  # opaque to the compiler, which would draw bit by bit
def keep_mask(like: Tensor, seed: Tensor, kept: int) -> Tensor:
    """Bool tensor of the shape of `like`, on the CPU; each element is true with probability `kept` / 2**16."""
    words = np.random.SFC64(int(seed)).random_raw(-(-like.numel() // _NUMBERS_A_WORD))
    numbers = torch.from_numpy(words.view(np.int16))[: like.numel()].view(like.shape)
    return numbers < kept - _LEVELS // 2


@keep_mask.register_fake
def _(like: Tensor, seed: Tensor, kept: int) -> Tensor:
    return torch.empty(like.shape, dtype=torch.bool, device=like.device)
