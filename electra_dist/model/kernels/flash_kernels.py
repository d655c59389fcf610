"""Triton code of the attention over packed documents; `flash_attention.py` launches it and explains
the method.

Every token t attends to the keys of one interval [low_t, high_t) of the flattened tokens: its
document, cut to the local window. Both bounds never decrease with t, and the relation is symmetric
(t attends to s exactly where s attends to t), so one pair of arrays drives all three kernels. A
block of queries meets its keys in three stretches:

    low of the first query .. inner start    masked
    inner start .. inner stop                every query of the block attends to every key: no mask
    inner stop .. high of the last query     masked

`qkv` is (T, 3, A, D) and `grad_qkv` alike, the others are (T, A, D), all with a unit last stride;
log-sum-exp and delta are (A, T) fp32. Scores are kept in units of log2, so that exp2 serves:
`scale_log2` = softmax scale * log2(e).

Dropout sets weights to zero after the softmax and scales the others by s. Where m is the mask, p
the softmax, g the gradient of the output times the transposed values: the gradient of the scores is
s p (m g - delta / s), with delta = rowsum(out * grad_out) as without dropout. So s is left out
inside and multiplied at the end; `delta` is kept divided by it. `hashing.keeps` makes m anew in
each kernel.

Names: block_m queries, block_n keys of a block, head_dim D, block_d the next power of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from electra_dist.model.kernels.hashing import head_states, keeps, key_state, query_states

jit: Callable[[Callable[..., Any]], Any] = triton.jit


@jit
def _load_rows(
    base: tl.tensor, rows: tl.tensor, stride: tl.tensor, limit: tl.tensor, masked: tl.constexpr,
    head_dim: tl.constexpr, block_d: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """(rows, block_d) of a tensor whose rows lie `stride` apart; zero outside."""
    columns = tl.arange(0, block_d)
    pointers = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if head_dim < block_d:
        values = tl.load(
            pointers, mask=(rows < limit)[:, None] & (columns < head_dim)[None, :], other=0.0
        )
    elif masked:
        values = tl.load(pointers, mask=(rows < limit)[:, None], other=0.0)
    else:
        values = tl.load(pointers)
    return values


@jit
def _store_rows(
    base: tl.tensor, rows: tl.tensor, stride: tl.tensor, limit: tl.tensor, values: tl.tensor,
    head_dim: tl.constexpr, block_d: tl.constexpr,
) -> None:  # fmt: skip
    """Store (rows, block_d) in the element type of `base`."""
    columns = tl.arange(0, block_d)
    pointers = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    mask = (rows < limit)[:, None] & (columns < head_dim)[None, :]
    tl.store(pointers, values.to(base.dtype.element_ty), mask=mask)


@jit
def _stretches(
    low_ptr: tl.tensor, high_ptr: tl.tensor, first: tl.tensor, tokens: tl.tensor,
    block: tl.constexpr, step: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Scalars (start, inner start, inner stop, stop)
    of the tokens that the block at `first` meets.
    """
    last = tl.minimum(first + block, tokens) - 1
    start = tl.load(low_ptr + first)
    stop = tl.load(high_ptr + last)
    inner_low = tl.load(low_ptr + last)  # from here on, every token of the block sees the key ..
    inner_high = tl.load(high_ptr + first)  # .. up to here
    inner_start = start + tl.cdiv(inner_low - start, step) * step
    inner_stop = inner_start + tl.maximum(inner_high - inner_start, 0) // step * step
    inner_start = tl.minimum(inner_start, stop)
    return start, inner_start, tl.maximum(inner_start, tl.minimum(inner_stop, stop)), stop


@jit
def _stretch(
    part: tl.constexpr, start: tl.tensor, inner_start: tl.tensor, inner_stop: tl.tensor,
    stop: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """First and last of the stretch number `part` of the three."""
    if part == 0:
        first = start
        last = inner_start
    elif part == 1:
        first = inner_start
        last = inner_stop
    else:
        first = inner_stop
        last = stop
    return first, last


@jit
def _forward_stretch(
    acc: tl.tensor, sum_m: tl.tensor, max_m: tl.tensor, q: tl.tensor, k_base: tl.tensor,
    v_base: tl.tensor, stride_t: tl.tensor, start: tl.tensor, stop: tl.tensor, low_m: tl.tensor,
    high_m: tl.tensor, scale_log2: tl.tensor, state_1: tl.tensor, state_2: tl.tensor,
    state_3: tl.tensor, threshold: tl.tensor, masked: tl.constexpr, dropout: tl.constexpr,
    block_n: tl.constexpr, head_dim: tl.constexpr, block_d: tl.constexpr, precision: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Online softmax over the keys [start, stop)."""
    for first in range(start, stop, block_n):
        keys = first + tl.arange(0, block_n)
        k = _load_rows(k_base, keys, stride_t, stop, masked, head_dim, block_d)
        scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale_log2
        if masked:
            seen = (keys[None, :] >= low_m[:, None]) & (keys[None, :] < high_m[:, None])
            scores = tl.where(seen, scores, float("-inf"))
        new_max = tl.maximum(max_m, tl.max(scores, axis=1))
        # masked: a row may have seen no key yet
        shift = tl.where(new_max == float("-inf"), 0.0, new_max) if masked else new_max
        weights = tl.exp2(scores - shift[:, None])
        correction = tl.exp2(max_m - shift)
        sum_m = sum_m * correction + tl.sum(weights, axis=1)
        if dropout:
            third = key_state(state_3, keys)
            weights = tl.where(
                keeps(state_1[:, None], state_2[:, None], third[None, :], threshold), weights, 0.0
            )
        v = _load_rows(v_base, keys, stride_t, stop, masked, head_dim, block_d)
        acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision=precision)
        max_m = new_max
    return acc, sum_m, max_m


@jit
def forward_kernel(
    qkv_ptr: tl.tensor, out_ptr: tl.tensor, lse_ptr: tl.tensor, low_ptr: tl.tensor,
    high_ptr: tl.tensor, seed_ptr: tl.tensor, tokens: tl.tensor, scale_log2: tl.tensor,
    threshold: tl.tensor, keep_scale: tl.tensor, stride_t: tl.tensor, stride_p: tl.tensor,
    stride_a: tl.tensor, stride_ot: tl.tensor, stride_oa: tl.tensor, head_dim: tl.constexpr,
    block_d: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr, precision: tl.constexpr,
    dropout: tl.constexpr,
) -> None:  # fmt: skip
    """One block of queries of one head: output and log-sum-exp (in log2)."""
    first = tl.program_id(0) * block_m
    head = tl.program_id(1)
    queries = first + tl.arange(0, block_m)
    low_m = tl.load(low_ptr + queries, mask=queries < tokens, other=0)
    high_m = tl.load(high_ptr + queries, mask=queries < tokens, other=0)
    start, inner_start, inner_stop, stop = _stretches(
        low_ptr, high_ptr, first, tokens, block_m, block_n
    )
    q_base = qkv_ptr + head * stride_a
    k_base = q_base + stride_p
    v_base = q_base + 2 * stride_p
    state_1 = 0
    state_2 = 0
    state_3 = 0
    if dropout:
        head_1, head_2, state_3 = head_states(seed_ptr, head)
        state_1, state_2 = query_states(head_1, head_2, queries)
    q = _load_rows(q_base, queries, stride_t, tokens, True, head_dim, block_d)
    acc = tl.zeros((block_m, block_d), tl.float32)
    sum_m = tl.zeros((block_m,), tl.float32)
    max_m = tl.full((block_m,), float("-inf"), tl.float32)
    for part in tl.static_range(3):
        begin, end = _stretch(part, start, inner_start, inner_stop, stop)
        acc, sum_m, max_m = _forward_stretch(
            acc, sum_m, max_m, q, k_base, v_base, stride_t, begin, end, low_m, high_m, scale_log2,
            state_1, state_2, state_3, threshold, part != 1, dropout, block_n, head_dim, block_d,
            precision,
        )  # fmt: skip
    empty = sum_m == 0.0  # a token outside every document attends to nothing: output 0
    sum_m = tl.where(empty, 1.0, sum_m)
    share_m = keep_scale / sum_m if dropout else 1.0 / sum_m
    out_base = out_ptr + head * stride_oa
    out = acc * share_m[:, None]
    _store_rows(out_base, queries, stride_ot, tokens, out, head_dim, block_d)
    lse_m = tl.where(empty, 0.0, max_m + tl.log2(sum_m))
    tl.store(lse_ptr + head.to(tl.int64) * tokens + queries, lse_m, mask=queries < tokens)


@jit
def _query_grad_stretch(
    grad_q: tl.tensor, q: tl.tensor, grad_out: tl.tensor, lse_m: tl.tensor, delta_m: tl.tensor,
    k_base: tl.tensor, v_base: tl.tensor, stride_t: tl.tensor, start: tl.tensor, stop: tl.tensor,
    low_m: tl.tensor, high_m: tl.tensor, scale_log2: tl.tensor, state_1: tl.tensor,
    state_2: tl.tensor, state_3: tl.tensor, threshold: tl.tensor, masked: tl.constexpr,
    dropout: tl.constexpr, block_n: tl.constexpr, head_dim: tl.constexpr, block_d: tl.constexpr,
    precision: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Add the part of the keys [start, stop) to the gradient of a block of queries."""
    for first in range(start, stop, block_n):
        keys = first + tl.arange(0, block_n)
        k = _load_rows(k_base, keys, stride_t, stop, masked, head_dim, block_d)
        v = _load_rows(v_base, keys, stride_t, stop, masked, head_dim, block_d)
        scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale_log2
        if masked:
            seen = (keys[None, :] >= low_m[:, None]) & (keys[None, :] < high_m[:, None])
            scores = tl.where(seen, scores, float("-inf"))
        weights = tl.exp2(scores - lse_m[:, None])
        grad_weights = tl.dot(grad_out, tl.trans(v), input_precision=precision)
        if dropout:
            third = key_state(state_3, keys)
            kept = keeps(state_1[:, None], state_2[:, None], third[None, :], threshold)
            grad_weights = tl.where(kept, grad_weights, 0.0)
        grad_scores = weights * (grad_weights - delta_m[:, None])
        grad_q = tl.dot(grad_scores.to(k.dtype), k, grad_q, input_precision=precision)
    return grad_q


@jit
def query_grad_kernel(
    qkv_ptr: tl.tensor, out_ptr: tl.tensor, grad_out_ptr: tl.tensor, lse_ptr: tl.tensor,
    delta_ptr: tl.tensor, grad_qkv_ptr: tl.tensor, low_ptr: tl.tensor, high_ptr: tl.tensor,
    seed_ptr: tl.tensor, tokens: tl.tensor, scale: tl.tensor, scale_log2: tl.tensor,
    threshold: tl.tensor, keep_scale: tl.tensor, stride_t: tl.tensor, stride_p: tl.tensor,
    stride_a: tl.tensor, stride_ot: tl.tensor, stride_oa: tl.tensor, stride_gt: tl.tensor,
    stride_ga: tl.tensor, stride_dt: tl.tensor, stride_dp: tl.tensor, stride_da: tl.tensor,
    head_dim: tl.constexpr, block_d: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr,
    precision: tl.constexpr, dropout: tl.constexpr,
) -> None:  # fmt: skip
    """One block of queries of one head: their gradient, and delta = rowsum(out * grad_out) for the
    other kernel.

    `scale` is the softmax scale times `keep_scale`.
    """
    first = tl.program_id(0) * block_m
    head = tl.program_id(1)
    queries = first + tl.arange(0, block_m)
    inside = queries < tokens
    low_m = tl.load(low_ptr + queries, mask=inside, other=0)
    high_m = tl.load(high_ptr + queries, mask=inside, other=0)
    start, inner_start, inner_stop, stop = _stretches(
        low_ptr, high_ptr, first, tokens, block_m, block_n
    )
    q_base = qkv_ptr + head * stride_a
    k_base = q_base + stride_p
    v_base = q_base + 2 * stride_p
    state_1 = 0
    state_2 = 0
    state_3 = 0
    if dropout:
        head_1, head_2, state_3 = head_states(seed_ptr, head)
        state_1, state_2 = query_states(head_1, head_2, queries)
    q = _load_rows(q_base, queries, stride_t, tokens, True, head_dim, block_d)
    out = _load_rows(
        out_ptr + head * stride_oa, queries, stride_ot, tokens, True, head_dim, block_d
    )
    grad_out = _load_rows(
        grad_out_ptr + head * stride_ga, queries, stride_gt, tokens, True, head_dim, block_d
    )
    delta_m = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), axis=1)
    if dropout:
        delta_m = delta_m / keep_scale
    row = head.to(tl.int64) * tokens
    tl.store(delta_ptr + row + queries, delta_m, mask=inside)
    lse_m = tl.load(lse_ptr + row + queries, mask=inside, other=0.0)
    grad_q = tl.zeros((block_m, block_d), tl.float32)
    for part in tl.static_range(3):
        begin, end = _stretch(part, start, inner_start, inner_stop, stop)
        grad_q = _query_grad_stretch(
            grad_q, q, grad_out, lse_m, delta_m, k_base, v_base, stride_t, begin, end, low_m,
            high_m, scale_log2,
            state_1, state_2, state_3, threshold, part != 1, dropout, block_n, head_dim, block_d,
            precision,
        )  # fmt: skip
    grad_base = grad_qkv_ptr + head * stride_da
    _store_rows(grad_base, queries, stride_dt, tokens, grad_q * scale, head_dim, block_d)


@jit
def _load_statistics(
    base: tl.tensor, rows: tl.tensor, limit: tl.tensor, masked: tl.constexpr, copies: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """fp32 numbers of `rows`.

    With `copies` above 1 as many equal lines are loaded and the largest of equal numbers is taken.
    An older Triton loads a vector with fewer elements than threads in the layout that the products
    want, element by element in every thread; what has as many elements as there are threads it
    loads once (`flash_attention.statistics_copies`).
    """
    places = rows if copies == 1 else rows[None, :] + tl.zeros((copies, 1), tl.int32)
    values = (
        tl.load(base + places, mask=places < limit, other=0.0) if masked else tl.load(base + places)
    )
    if copies > 1:
        values = tl.max(values, axis=0)
    return values


@jit
def _key_grad_stretch(
    grad_k: tl.tensor, grad_v: tl.tensor, k: tl.tensor, v: tl.tensor, q_base: tl.tensor,
    grad_out_base: tl.tensor, lse_base: tl.tensor, delta_base: tl.tensor, stride_t: tl.tensor,
    stride_g: tl.tensor, start: tl.tensor, stop: tl.tensor, low_n: tl.tensor, high_n: tl.tensor,
    scale_log2: tl.tensor, head_1: tl.tensor, head_2: tl.tensor, third: tl.tensor,
    threshold: tl.tensor, masked: tl.constexpr, dropout: tl.constexpr, block_m: tl.constexpr,
    head_dim: tl.constexpr, block_d: tl.constexpr, precision: tl.constexpr, copies: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Add the part of the queries [start, stop) to the gradients of a block of keys and values."""
    for first in range(start, stop, block_m):
        queries = first + tl.arange(0, block_m)
        q = _load_rows(q_base, queries, stride_t, stop, masked, head_dim, block_d)
        grad_out = _load_rows(grad_out_base, queries, stride_g, stop, masked, head_dim, block_d)
        lse_m = _load_statistics(lse_base, queries, stop, masked, copies)
        delta_m = _load_statistics(delta_base, queries, stop, masked, copies)
        # (block_n, block_m)
        scores = tl.dot(k, tl.trans(q), input_precision=precision) * scale_log2
        if masked:
            seen = (queries[None, :] >= low_n[:, None]) & (queries[None, :] < high_n[:, None])
            scores = tl.where(seen, scores, float("-inf"))
        weights = tl.exp2(scores - lse_m[None, :])
        dropped = weights
        if dropout:
            state_1, state_2 = query_states(head_1, head_2, queries)
            kept = keeps(state_1[None, :], state_2[None, :], third[:, None], threshold)
            dropped = tl.where(kept, weights, 0.0)
        grad_v = tl.dot(dropped.to(grad_out.dtype), grad_out, grad_v, input_precision=precision)
        grad_weights = tl.dot(v, tl.trans(grad_out), input_precision=precision)
        if dropout:
            grad_weights = tl.where(kept, grad_weights, 0.0)
        grad_scores = weights * (grad_weights - delta_m[None, :])
        grad_k = tl.dot(grad_scores.to(q.dtype), q, grad_k, input_precision=precision)
    return grad_k, grad_v


@jit
def key_grad_kernel(
    qkv_ptr: tl.tensor, grad_out_ptr: tl.tensor, lse_ptr: tl.tensor, delta_ptr: tl.tensor,
    grad_qkv_ptr: tl.tensor, low_ptr: tl.tensor, high_ptr: tl.tensor, seed_ptr: tl.tensor,
    tokens: tl.tensor, scale: tl.tensor, scale_log2: tl.tensor, threshold: tl.tensor,
    keep_scale: tl.tensor, stride_t: tl.tensor, stride_p: tl.tensor, stride_a: tl.tensor,
    stride_gt: tl.tensor, stride_ga: tl.tensor, stride_dt: tl.tensor, stride_dp: tl.tensor,
    stride_da: tl.tensor, head_dim: tl.constexpr, block_d: tl.constexpr, block_m: tl.constexpr,
    block_n: tl.constexpr, precision: tl.constexpr, dropout: tl.constexpr, copies: tl.constexpr,
) -> None:  # fmt: skip
    """One block of keys of one head: the gradients of keys and values;
    `scale` as in the other kernel.
    """
    first = tl.program_id(0) * block_n
    head = tl.program_id(1)
    keys = first + tl.arange(0, block_n)
    low_n = tl.load(low_ptr + keys, mask=keys < tokens, other=0)
    high_n = tl.load(high_ptr + keys, mask=keys < tokens, other=0)
    start, inner_start, inner_stop, stop = _stretches(
        low_ptr, high_ptr, first, tokens, block_n, block_m
    )
    q_base = qkv_ptr + head * stride_a
    grad_out_base = grad_out_ptr + head * stride_ga
    k = _load_rows(q_base + stride_p, keys, stride_t, tokens, True, head_dim, block_d)
    v = _load_rows(q_base + 2 * stride_p, keys, stride_t, tokens, True, head_dim, block_d)
    head_1 = 0
    head_2 = 0
    third = 0
    if dropout:
        head_1, head_2, head_3 = head_states(seed_ptr, head)
        third = key_state(head_3, keys)
    row = head.to(tl.int64) * tokens
    grad_k = tl.zeros((block_n, block_d), tl.float32)
    grad_v = tl.zeros((block_n, block_d), tl.float32)
    for part in tl.static_range(3):
        begin, end = _stretch(part, start, inner_start, inner_stop, stop)
        grad_k, grad_v = _key_grad_stretch(
            grad_k, grad_v, k, v, q_base, grad_out_base, lse_ptr + row, delta_ptr + row, stride_t,
            stride_gt,
            begin, end, low_n, high_n, scale_log2, head_1, head_2, third, threshold,
            part != 1, dropout, block_m, head_dim, block_d, precision, copies,
        )  # fmt: skip
    if dropout:
        grad_v = grad_v * keep_scale
    grad_base = grad_qkv_ptr + head * stride_da
    _store_rows(grad_base + stride_dp, keys, stride_dt, tokens, grad_k * scale, head_dim, block_d)
    _store_rows(grad_base + 2 * stride_dp, keys, stride_dt, tokens, grad_v, head_dim, block_d)
