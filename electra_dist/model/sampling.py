"""Sampling of replacement tokens from the generator's softmax: tile-Gumbel (DESIGN D2b).

The vocabulary is cut into tiles of 128 entries. By the Gumbel-max trick over tiles, the tile with
the largest `log-sum-exp + Gumbel` is a draw from the tiles' probabilities; inside it, inverse CDF
with one uniform number draws the entry. Together: exactly the softmax, with one random number a
tile instead of one an entry, and nearly insensitive to rounding (the Gumbel race is decided by
margins, not by a cumulative sum over 30,000 entries).

All noise is a hash of the position's 64-bit key and a counter (the tile's number, or
`UNIFORM_COUNTER`), in 32-bit integer operations, so that the same integers come out in PyTorch
(here) and in Triton (`kernels/generator_head.py`), whatever the device, the chunking or the world
size.

Letters: M masked positions, V vocabulary, C entries of a chunk of it, J tiles, K = 128 entries of a
tile.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 128
#: The counter of the uniform number; no vocabulary has that many tiles.
UNIFORM_COUNTER = 0xFFFFFFFF
#: Offsets that tell the two halves of the key state apart (fractional
#: bits of the golden ratio and of sqrt(2)).
KEY_OFFSET_1 = 0x1E3779B9
KEY_OFFSET_2 = 0x6A09E667
#: Multipliers of the 32-bit mixer: Chris Wellons, hash-prospector, bias 0.107. Both are below
#: 2**31, so that a product with a 32-bit number fits in int64 without overflow.
MIX_1 = 0x21F0AAAD
MIX_2 = 0x735A2D97

_MASK = 0xFFFFFFFF
_LARGEST_BELOW_ONE = 1.0 - 2.0**-24


class TileSoftmax(NamedTuple):
    """A chunk of logits by tiles: `max_mj` (M, J), `exp_mjk` = exp(logit - max)
    (M, J, K), `lse_mj` (M, J).
    """

    max_mj: Tensor
    exp_mjk: Tensor
    lse_mj: Tensor


class Candidate(NamedTuple):
    """The best tile's `score_m` (log-sum-exp + Gumbel, fp32)
    and the entry drawn in it, `token_m` (int64).
    """

    score_m: Tensor
    token_m: Tensor


def sample_tokens(logits_mv: Tensor, keys_m: Tensor, temperature: float = 1.0) -> Tensor:
    """Draw one token a row from softmax(logits / temperature).

    Args:
        logits_mv: (M, V), any float type; computed in fp32, without gradient.
        keys_m: (M,) int64, the 64-bit key of each position (unsigned keys reinterpreted as signed).
        temperature: above 0.

    Returns:
        (M,) int64 token ids.
    """
    with torch.no_grad():
        return sample_chunk(logits_mv.float(), keys_m, temperature).token_m


def sample_chunk(
    logits_mc: Tensor, keys_m: Tensor, temperature: float = 1.0, first_entry: int = 0
) -> Candidate:
    """The candidate of the entries `[first_entry, first_entry + C)`, to be merged with `better`
    over all chunks.

    Args:
        logits_mc: (M, C) fp32; not changed.
        keys_m: (M,) int64.
        temperature: above 0.
        first_entry: vocabulary id of the chunk's first entry, a multiple of `TILE`.
    """
    check_temperature(temperature)
    logits_mjk = in_tiles(logits_mc * (1.0 / temperature))
    tiles = tile_softmax(logits_mjk, tile_maxima(logits_mjk))
    return draw(tiles, keys_m, first_entry, logits_mc.shape[1])


def better(first: Candidate, second: Candidate) -> Candidate:
    """The candidate with the larger score, row by row (ties: the first)."""
    take = second.score_m > first.score_m
    return Candidate(
        torch.where(take, second.score_m, first.score_m),
        torch.where(take, second.token_m, first.token_m),
    )


def in_tiles(logits_mc: Tensor) -> Tensor:
    """(M, J, K) the same logits by tiles; a view, unless the last tile must be filled up."""
    rows, entries = logits_mc.shape
    missing = -entries % TILE
    if missing:
        logits_mc = F.pad(logits_mc, (0, missing), value=float("-inf"))
    return logits_mc.view(rows, (entries + missing) // TILE, TILE)


def tile_maxima(logits_mjk: Tensor) -> Tensor:
    """(M, J) fp32, finite."""
    return logits_mjk.amax(dim=2).clamp(min=torch.finfo(torch.float32).min)


def tile_softmax(logits_mjk: Tensor, max_mj: Tensor) -> TileSoftmax:
    """Exponentials and log-sum-exp of every tile; `logits_mjk` fp32 is overwritten."""
    exp_mjk = logits_mjk.sub_(max_mj[:, :, None]).exp_()
    return TileSoftmax(max_mj, exp_mjk, max_mj + exp_mjk.sum(dim=2).log())


def draw(tiles: TileSoftmax, keys_m: Tensor, first_entry: int, entries: int) -> Candidate:
    """The race over a chunk's tiles, and the inverse CDF inside the winner.

    `entries` is the number of real entries of the chunk (its last tile may be padded).
    """
    rows, count, _ = tiles.exp_mjk.shape
    score_mj = tiles.lse_mj + gumbel_noise(keys_m, first_entry // TILE, count)
    score_m, winner_m = score_mj.max(dim=1)
    weights_mk = tiles.exp_mjk.gather(1, winner_m[:, None, None].expand(rows, 1, TILE)).squeeze(1)
    cdf_mk = weights_mk.cumsum(dim=1)
    threshold_m = uniform_noise(keys_m) * cdf_mk[:, -1]
    inside_m = (cdf_mk <= threshold_m[:, None]).sum(dim=1)
    token_m = (winner_m * TILE + inside_m).clamp(max=entries - 1)
    return Candidate(score_m, token_m + first_entry)


def gumbel_noise(keys_m: Tensor, first_tile: int, tiles: int) -> Tensor:
    """(M, tiles) fp32 standard Gumbel numbers of the tiles `[first_tile, first_tile + tiles)`.

    -log(E) with E = -log(1 - v), v uniform. Small E are the large Gumbel numbers that let a rare
    tile win, so v keeps the 32 bits of the hash near 0, and there log(1 - v) is taken from its
    series.
    """
    counters_n = torch.arange(first_tile, first_tile + tiles, device=keys_m.device)
    bits_mj = hash_bits(keys_m[:, None], counters_n[None, :])
    v = bits_mj.float().clamp_(0.5, _LARGEST_BELOW_ONE * 2.0**32).mul_(2.0**-32)
    exponential = torch.where(v < 2.0**-12, v + 0.5 * v * v, -torch.log(1.0 - v))
    return -torch.log(exponential)


def uniform_noise(keys_m: Tensor) -> Tensor:
    """(M,) fp32 uniform numbers in [0, 1 - 2**-23]:
    times a sum, they stay below that sum in fp32.
    """
    counter = torch.full((), UNIFORM_COUNTER, dtype=torch.int64, device=keys_m.device)
    return (hash_bits(keys_m, counter) >> 9).float() * 2.0**-23


def hash_bits(keys: Tensor, counters: Tensor) -> Tensor:
    """32 random bits (int64 in [0, 2**32))
    of each 64-bit key and 32-bit counter, which broadcast.
    """
    low = keys & _MASK
    high = (keys >> 32) & _MASK
    state_1 = _mix(_mix((low + KEY_OFFSET_1) & _MASK) ^ high)
    state_2 = _mix(_mix((high + KEY_OFFSET_2) & _MASK) ^ low)
    return _mix(_mix((state_1 + counters) & _MASK) ^ state_2)


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless `temperature` is above 0."""
    if not temperature > 0.0:
        raise ValueError(f"sampling temperature is {temperature}, expected a number above 0")


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers (held in int64)
    that spreads every input bit over all output bits.
    """
    x = x ^ (x >> 16)
    x = (x * MIX_1) & _MASK
    x = x ^ (x >> 15)
    x = (x * MIX_2) & _MASK
    return x ^ (x >> 15)
