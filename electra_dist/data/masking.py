"""Which tokens are masked, and the sampling key of each: functions of the row's key and nothing
else.

Of the tokens of a row that are not special ([PAD], [CLS], [SEP], [MASK]; [UNK] may be masked),
exactly round(mask_fraction x count) are selected without replacement, at least one. Each selected
token becomes [MASK] with probability `mask_token_fraction` (an independent draw a token) and stays
as it is otherwise; none becomes a random token (ELECTRA, appendix and `pretrain_helpers.py`; its
sampling with replacement is an admitted bug).

Random numbers are counter-based: a splitmix64 hash of (row key, purpose, position), vectorised. A
row's key is a hash of (seed, split, epoch, block, row): masks depend on the data's position, never
on rank or world size.

Letters: B rows, L row length, P masked slots a row.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.batch import Float32, Int32, SpecialTokens, UInt64

_GOLDEN = 0x9E3779B97F4A7C15
_BITS = 2**64 - 1
#: Low bits of a draw that hold the position, which makes the draws of a row distinct.
_POSITION_BITS = np.uint64(0xFFFF)
# Purposes of the draws, the last word of their keys.
_SELECT = 1
_REPLACE = 2
_SAMPLE = 3


@dataclass(frozen=True)
class Masks:
    """Masks of B rows; see `MicroBatch` for the fields. `inputs` is (B, L), the others (B, P)."""

    inputs: Int32
    positions: Int32
    targets: Int32
    weights: Float32
    keys: UInt64


def hash_words(*words: int) -> int:
    """A 64-bit hash of integers below 2^64, in order."""
    state = 0
    for word in words:
        state = mix((state + _GOLDEN + (word & _BITS)) & _BITS)
    return state


def mix(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _BITS
    return x ^ (x >> 31)


def mix_array(x: UInt64) -> UInt64:
    """`mix` of every element."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def absorb(state: UInt64, words: npt.NDArray[np.integer[Any]] | np.uint64) -> UInt64:
    """One more word hashed into each state: `hash_words` continued, element by element."""
    return mix_array(state + np.uint64(_GOLDEN) + np.asarray(words).astype(np.uint64))


def masked_slots(mask_fraction: float, row_length: int) -> int:
    """P, the masked slots of a row: ceil(mask_fraction * row_length)."""
    return math.ceil(Fraction(str(mask_fraction)) * row_length)


def masked_counts(
    maskable: npt.NDArray[np.int64], mask_fraction: float, row_length: int, slots: int
) -> npt.NDArray[np.int64]:
    """How many tokens are masked in rows with `maskable` maskable ones:
    rounded half up, at least 1 of any.
    """
    counts: npt.NDArray[np.int64] = _counts_table(mask_fraction, row_length + 1)[maskable]
    return np.minimum(counts, slots)


@functools.lru_cache(maxsize=8)
def _counts_table(mask_fraction: float, size: int) -> npt.NDArray[np.int64]:
    """How many of 0, 1, ..., `size` - 1 maskable tokens are masked, in exact arithmetic."""
    exact = Fraction(str(mask_fraction))
    return np.array(
        [max(math.floor(exact * n + Fraction(1, 2)), min(n, 1)) for n in range(size)],
        dtype=np.int64,
    )


def mask_rows(
    tokens: Int32,
    row_keys: UInt64,
    mask_fraction: float,
    mask_token_fraction: float,
    specials: SpecialTokens,
) -> Masks:
    """Masks of the rows `tokens` (B, L) with keys `row_keys` (B,)."""
    length = tokens.shape[1]
    slots = masked_slots(mask_fraction, length)
    maskable = _maskable(tokens, specials)
    counts = masked_counts(maskable.sum(axis=1), mask_fraction, length, slots)
    used = np.arange(slots) < counts[:, None]
    positions = _select(maskable, row_keys, slots)
    positions = np.sort(np.where(used, positions, length), axis=1)  # ascending, unused slots last
    positions[~used] = 0
    targets = np.where(used, np.take_along_axis(tokens, positions, axis=1), 0).astype(np.int32)
    shown = _draw(row_keys, _REPLACE, positions) >= _threshold(mask_token_fraction)
    inputs = tokens.copy()
    rows = np.broadcast_to(np.arange(len(tokens))[:, None], used.shape)
    hidden = used & ~shown
    inputs[rows[hidden], positions[hidden]] = specials.mask
    keys = np.where(used, _draw(row_keys, _SAMPLE, positions), np.uint64(0))
    return Masks(inputs, positions.astype(np.int32), targets, used.astype(np.float32), keys)


def _maskable(tokens: Int32, specials: SpecialTokens) -> npt.NDArray[np.bool_]:
    """(B, L) whether each token may be masked."""
    maskable: npt.NDArray[np.bool_] = tokens != specials.pad
    for special in specials.never_masked[1:]:
        maskable &= tokens != special
    return maskable


def _draw(row_keys: UInt64, purpose: int, positions: npt.NDArray[np.int64]) -> UInt64:
    """A 64-bit draw for each of `positions`, (n,) for all rows alike or (B, n)."""
    return absorb(absorb(row_keys, np.uint64(purpose))[:, None], positions)


def _select(maskable: npt.NDArray[np.bool_], row_keys: UInt64, slots: int) -> npt.NDArray[np.int64]:
    """(B, P) positions of the maskable tokens with the smallest draws,
    smallest first, then of others.
    """
    places = np.arange(maskable.shape[1])
    draws = _draw(row_keys, _SELECT, places)
    draws = (draws & ~_POSITION_BITS) | places.astype(np.uint64)
    draws[~maskable] |= ~_POSITION_BITS  # after every maskable one
    smallest = np.sort(np.partition(draws, slots - 1, axis=1)[:, :slots], axis=1)
    return (smallest & _POSITION_BITS).astype(np.int64)


def _threshold(probability: float) -> np.uint64:
    """The draw below which an event of `probability` happens."""
    return np.uint64(min(_BITS, int(Fraction(probability) * 2**64)))
