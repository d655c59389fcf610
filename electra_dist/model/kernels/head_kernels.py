"""Triton code of the fused generator head; `generator_head.py` launches it and explains the method.

Letters: M masked positions, E embedding size, V vocabulary, S splits of the vocabulary (one program
each and block of positions), tiles of 128 entries (`sampling.TILE`). `block_m` positions and
`block_e` embedding entries at a time. The hash must give the same integers as `sampling.hash_bits`,
and the noise the same numbers to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from electra_dist.model import head, sampling
from electra_dist.model.kernels.hashing import key_states, mix

jit: Callable[[Callable[..., Any]], Any] = triton.jit

TILE = tl.constexpr(sampling.TILE)
UNIFORM_COUNTER = tl.constexpr(sampling.UNIFORM_COUNTER)
LARGEST_BELOW_ONE = tl.constexpr(1.0 - 2.0**-24)
TO_UNIT = tl.constexpr(2.0**-32)
SMALLEST_UNIT = tl.constexpr(2.0**-33)
SERIES_BELOW = tl.constexpr(2.0**-12)
TOP = tl.constexpr(head.TOP)
UNIT_23 = tl.constexpr(2.0**-23)
LOG2_E = tl.constexpr(1.4426950408889634)


@jit
def _gumbel(state_1: tl.tensor, state_2: tl.tensor, tile: tl.tensor) -> tl.tensor:
    """`sampling.gumbel_noise` of one tile for every position."""
    bits = mix(mix(state_1 + tile.to(tl.uint32)) ^ state_2)
    v = tl.minimum(tl.maximum(bits.to(tl.float32) * TO_UNIT, SMALLEST_UNIT), LARGEST_BELOW_ONE)
    return -tl.log(tl.where(v < SERIES_BELOW, v + 0.5 * v * v, -tl.log(1.0 - v)))


@jit
def _load_columns(
    pointers: tl.tensor, first: tl.tensor, size: tl.constexpr, block_e: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Columns [first, first + block_e) of the rows at `pointers` (rows, 1); zero from `size` on."""
    columns = (first + tl.arange(0, block_e))[None, :]
    if size % block_e == 0:
        values = tl.load(pointers + columns)
    else:
        values = tl.load(pointers + columns, mask=columns < size, other=0.0)
    return values


@jit
def _row_pointers(
    base: tl.tensor, rows: tl.tensor, count: tl.tensor, stride: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """(rows, 1) pointers; rows outside repeat the last one, so that loads need no mask."""
    return base + tl.minimum(rows, count - 1).to(tl.int64)[:, None] * stride


@jit
def _tile_logits(
    hidden: tl.tensor, hidden_rows: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor,
    entries: tl.tensor, vocabulary: tl.tensor, stride_w: tl.tensor, size: tl.constexpr,
    block_m: tl.constexpr, block_v: tl.constexpr, block_e: tl.constexpr, precision: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """(block_m, block_v) fp32 logits; -inf for entries outside the vocabulary.

    `hidden` is the first block_e columns of `hidden_rows`: where that is all, it stays in registers
    over the tiles.
    """
    weight_rows = _row_pointers(weight_ptr, entries, vocabulary, stride_w)
    if size <= block_e:
        weight = _load_columns(weight_rows, 0, size, block_e)
        acc = tl.dot(hidden, tl.trans(weight), input_precision=precision)
    else:
        acc = tl.zeros((block_m, block_v), tl.float32)
        for first in range(0, size, block_e):
            part = _load_columns(hidden_rows, first, size, block_e)
            weight = _load_columns(weight_rows, first, size, block_e)
            acc = tl.dot(part, tl.trans(weight), acc, input_precision=precision)
    bias = tl.load(bias_ptr + entries, mask=entries < vocabulary, other=float("-inf")).to(
        tl.float32
    )
    return acc + bias[None, :]


@jit
def _target_logits(
    hidden_rows: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, targets: tl.tensor,
    vocabulary: tl.tensor, stride_w: tl.tensor, size: tl.constexpr, block_m: tl.constexpr,
    block_e: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """(block_m,) fp32 logit of each position's own target, which is below 0 for none."""
    entries = tl.maximum(targets, 0)
    target_rows = _row_pointers(weight_ptr, entries, vocabulary, stride_w)
    acc = tl.zeros((block_m,), tl.float32)
    for first in range(0, size, block_e):
        part = _load_columns(hidden_rows, first, size, block_e).to(tl.float32)
        weight = _load_columns(target_rows, first, size, block_e).to(tl.float32)
        acc += tl.sum(part * weight, axis=1)
    return acc + tl.load(bias_ptr + entries).to(tl.float32)


@jit
def _exp_sum(logits: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Maximum and sum of exp(logit - maximum), row by row."""
    maximum = tl.max(logits, axis=1)
    return maximum, tl.sum(tl.exp2((logits - maximum[:, None]) * LOG2_E), axis=1)


@jit
def forward_kernel(
    hidden_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, targets_ptr: tl.tensor,
    keys_ptr: tl.tensor, max_ptr: tl.tensor, sum_ptr: tl.tensor, target_logit_ptr: tl.tensor,
    score_ptr: tl.tensor, tile_ptr: tl.tensor, larger_ptr: tl.tensor, tile_logits_ptr: tl.tensor,
    count: tl.tensor, vocabulary: tl.tensor, tiles_per_split: tl.tensor,
    inverse_temperature: tl.tensor, stride_h: tl.tensor, stride_w: tl.tensor, size: tl.constexpr,
    block_m: tl.constexpr, block_e: tl.constexpr, tempered: tl.constexpr, precision: tl.constexpr,
) -> None:  # fmt: skip
    """One block of positions over one split of the vocabulary.

    Writes, at [split, position]: maximum and exponential sum, the target's logit (0 where it is in
    another split), the best tile's score and number, and how many other entries have a larger logit
    than the target; and at [split, position, :] the best tile's logits, each time a better one is
    found.
    """
    rows = tl.program_id(0) * block_m + tl.arange(0, block_m)
    split = tl.program_id(1)
    inside = rows < count
    targets = tl.load(targets_ptr + rows, mask=inside, other=-1)
    state_1, state_2 = key_states(tl.load(keys_ptr + rows, mask=inside, other=0))
    hidden_rows = _row_pointers(hidden_ptr, rows, count, stride_h)
    hidden = _load_columns(hidden_rows, 0, size, block_e)
    total_max = tl.full((block_m,), float("-inf"), tl.float32)
    total_sum = tl.zeros((block_m,), tl.float32)
    target_logit = tl.zeros((block_m,), tl.float32)
    best_score = tl.full((block_m,), float("-inf"), tl.float32)
    best_tile = tl.zeros((block_m,), tl.int32)
    known_logit = _target_logits(
        hidden_rows, weight_ptr, bias_ptr, targets, vocabulary, stride_w, size, block_m, block_e,
    )  # fmt: skip
    larger = tl.zeros((block_m,), tl.int32)
    slots = split.to(tl.int64) * count + rows
    scratch = tile_logits_ptr + slots[:, None] * TILE + tl.arange(0, TILE)[None, :]
    first_tile = split * tiles_per_split
    last_tile = tl.minimum(first_tile + tiles_per_split, tl.cdiv(vocabulary, TILE))
    for step in range(last_tile - first_tile):
        tile = first_tile + step
        entries = tile * TILE + tl.arange(0, TILE)
        logits = _tile_logits(
            hidden, hidden_rows, weight_ptr, bias_ptr, entries, vocabulary, stride_w,
            size, block_m, TILE, block_e, precision,
        )  # fmt: skip
        is_target = entries[None, :] == targets[:, None]
        target_logit += tl.sum(tl.where(is_target, logits, 0.0), axis=1)
        is_larger = (logits > known_logit[:, None]) & ~is_target
        larger += tl.sum(is_larger.to(tl.int32), axis=1)
        tile_max, tile_sum = _exp_sum(logits)
        new_max = tl.maximum(total_max, tile_max)
        total_sum = total_sum * tl.exp2((total_max - new_max) * LOG2_E)
        total_sum += tile_sum * tl.exp2((tile_max - new_max) * LOG2_E)
        total_max = new_max
        if tempered:
            tile_max, tile_sum = _exp_sum(logits * inverse_temperature)
        score = tile_max + tl.log(tile_sum) + _gumbel(state_1, state_2, tile)
        improved = score > best_score
        tl.store(scratch, logits, mask=(improved & inside)[:, None])
        best_score = tl.where(improved, score, best_score)
        best_tile = tl.where(improved, tile, best_tile)
    tl.store(max_ptr + slots, total_max, mask=inside)
    tl.store(sum_ptr + slots, total_sum, mask=inside)
    tl.store(target_logit_ptr + slots, target_logit, mask=inside)
    tl.store(score_ptr + slots, best_score, mask=inside)
    tl.store(tile_ptr + slots, best_tile, mask=inside)
    tl.store(larger_ptr + slots, larger, mask=inside)


@jit
def finish_kernel(
    max_ptr: tl.tensor, sum_ptr: tl.tensor, target_logit_ptr: tl.tensor, score_ptr: tl.tensor,
    tile_ptr: tl.tensor, larger_ptr: tl.tensor, tile_logits_ptr: tl.tensor, keys_ptr: tl.tensor,
    nll_ptr: tl.tensor, lse_ptr: tl.tensor, correct_ptr: tl.tensor, in_top_ptr: tl.tensor,
    sample_ptr: tl.tensor, count: tl.tensor, vocabulary: tl.tensor, splits: tl.tensor,
    inverse_temperature: tl.tensor, block_m: tl.constexpr, block_s: tl.constexpr,
) -> None:  # fmt: skip
    """Merge the splits of a block of positions; draw inside the winning tile by inverse CDF."""
    rows = tl.program_id(0) * block_m + tl.arange(0, block_m)
    inside = rows < count
    split = tl.arange(0, block_s)
    slots = split.to(tl.int64)[None, :] * count + rows[:, None]
    mask = (split < splits)[None, :] & inside[:, None]
    maxima = tl.load(max_ptr + slots, mask=mask, other=float("-inf"))
    sums = tl.load(sum_ptr + slots, mask=mask, other=0.0)
    total_max = tl.max(maxima, axis=1)
    total_max = tl.where(inside, total_max, 0.0)
    total_sum = tl.sum(sums * tl.exp2((maxima - total_max[:, None]) * LOG2_E), axis=1)
    lse = total_max + tl.log(tl.where(inside, total_sum, 1.0))
    target_logit = tl.sum(tl.load(target_logit_ptr + slots, mask=mask, other=0.0), axis=1)
    tl.store(lse_ptr + rows, lse, mask=inside)
    tl.store(nll_ptr + rows, lse - target_logit, mask=inside)
    larger = tl.sum(tl.load(larger_ptr + slots, mask=mask, other=0), axis=1)
    tl.store(correct_ptr + rows, (larger == 0).to(tl.int8), mask=inside)
    tl.store(in_top_ptr + rows, (larger < TOP).to(tl.int8), mask=inside)

    scores = tl.load(score_ptr + slots, mask=mask, other=float("-inf"))
    best = tl.max(scores, axis=1)
    winner = tl.min(tl.where(scores == best[:, None], split[None, :], block_s - 1), axis=1)
    winner = tl.minimum(winner, splits - 1)
    slot = winner.to(tl.int64) * count + rows
    tile = tl.load(tile_ptr + slot, mask=inside, other=0)
    columns = tl.arange(0, TILE)
    logits = tl.load(
        tile_logits_ptr + slot[:, None] * TILE + columns[None, :], mask=inside[:, None], other=0.0
    )
    logits = logits * inverse_temperature
    weights = tl.exp2((logits - tl.max(logits, axis=1)[:, None]) * LOG2_E)
    cdf = tl.cumsum(weights, axis=1)
    total = tl.max(cdf, axis=1)
    state_1, state_2 = key_states(tl.load(keys_ptr + rows, mask=inside, other=0))
    bits = mix(mix(state_1 + UNIFORM_COUNTER) ^ state_2)
    threshold = (bits >> 9).to(tl.float32) * UNIT_23 * total
    passed = tl.sum((cdf <= threshold[:, None]).to(tl.int32), axis=1)
    sample = tl.minimum(tile * TILE + passed, vocabulary - 1)
    tl.store(sample_ptr + rows, sample.to(tl.int64), mask=inside)


@jit
def grad_logits_kernel(
    hidden_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, targets_ptr: tl.tensor,
    lse_ptr: tl.tensor, grad_nll_ptr: tl.tensor, grad_logits_ptr: tl.tensor,
    grad_bias_ptr: tl.tensor, count: tl.tensor, entries_end: tl.tensor, first_entry: tl.tensor,
    stride_h: tl.tensor, stride_w: tl.tensor, stride_g: tl.tensor, stride_b: tl.tensor,
    size: tl.constexpr, block_m: tl.constexpr, block_v: tl.constexpr, block_e: tl.constexpr,
    precision: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient of the logits of one block of positions and entries of a chunk of the vocabulary.

    (softmax - one-hot target) * grad_nll, recomputed from the log-sum-exp, written at [position,
    entry - first_entry] in the type of the inputs; and its sum over the block's positions, fp32, at
    [block, entry - first_entry].
    """
    block = tl.program_id(0)
    rows = block * block_m + tl.arange(0, block_m)
    columns = tl.program_id(1) * block_v + tl.arange(0, block_v)
    entries = first_entry + columns
    inside = rows < count
    hidden_rows = _row_pointers(hidden_ptr, rows, count, stride_h)
    logits = _tile_logits(
        _load_columns(hidden_rows, 0, size, block_e), hidden_rows, weight_ptr, bias_ptr, entries,
        entries_end, stride_w,
        size, block_m, block_v, block_e, precision,
    )  # fmt: skip
    lse = tl.load(lse_ptr + rows, mask=inside, other=float("inf"))
    grad_nll = tl.load(grad_nll_ptr + rows, mask=inside, other=0.0)
    targets = tl.load(targets_ptr + rows, mask=inside, other=-1)
    softmax = tl.exp2((logits - lse[:, None]) * LOG2_E)
    hit = entries[None, :] == targets[:, None]
    grad = tl.where(hit, softmax - 1.0, softmax) * grad_nll[:, None]
    grad = tl.where(inside[:, None], grad, 0.0)
    valid = entries < entries_end
    pointers = grad_logits_ptr + rows.to(tl.int64)[:, None] * stride_g + columns[None, :]
    tl.store(
        pointers, grad.to(grad_logits_ptr.dtype.element_ty), mask=inside[:, None] & valid[None, :]
    )
    tl.store(
        grad_bias_ptr + block.to(tl.int64) * stride_b + columns, tl.sum(grad, axis=0), mask=valid
    )
