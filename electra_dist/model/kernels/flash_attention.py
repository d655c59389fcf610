"""Our attention over packed documents, in Triton: bidirectional, exact, with an optional local window.

What follows which paper: the online softmax and the backward that recomputes the scores from the saved log-sum-exp
are FlashAttention-2's (arXiv 2307.08691, algorithms 1 and 2; sections 3.1 and 3.3 for one block of queries a
program). Delta = rowsum(out * grad_out) is FlashAttention's (arXiv 2205.14135, appendix B.4).

What is different: blocks are cut from the flattened T tokens of all rows, not from each document. The grid is then
dense and static whatever the documents' lengths (thousands of unused zero-length entries cost nothing, short
documents share a block), and a block that lies inside one document runs without any mask (`flash_kernels.py`).

Backward is deterministic by construction, always: one kernel owns each block of queries and writes its gradient,
another owns each block of keys; no atomic addition anywhere. The price is seven products instead of five.

Everything between the kernel launches is a registered custom operator with a shape function, so that
`torch.compile(fullgraph=True)` passes over it without a graph break.

Letters: T tokens, A heads, D head size, N documents at most.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from electra_dist.model.kernels import LARGE_SHARED_MEMORY, available, flash_kernels

SMALLEST_HEAD, LARGEST_HEAD = 16, 128
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_LOG2_E = 1.4426950408889634


class Config(NamedTuple):
    """Block sizes and launch parameters of one kernel: queries and keys a block, warps, pipeline stages."""

    block_m: int
    block_n: int
    warps: int
    stages: int


#: By kernel and padded head size, for half precision. One table instead of an autotuner: an autotuner times (and so
#: synchronises) at a moment that differs between ranks. Replace an entry to try another.
CONFIGS: dict[tuple[str, int], Config] = {
    ("forward", 16): Config(128, 64, 4, 3),
    ("forward", 32): Config(128, 64, 4, 3),
    ("forward", 64): Config(128, 64, 4, 3),
    ("forward", 128): Config(128, 64, 8, 3),
    ("query_grad", 16): Config(128, 64, 4, 3),
    ("query_grad", 32): Config(128, 64, 4, 3),
    ("query_grad", 64): Config(128, 64, 8, 2),
    ("query_grad", 128): Config(128, 64, 8, 2),
    ("key_grad", 16): Config(64, 128, 8, 3),
    ("key_grad", 32): Config(64, 128, 8, 3),
    ("key_grad", 64): Config(64, 128, 8, 2),
    ("key_grad", 128): Config(64, 128, 8, 2),
}
#: fp32 multiplies without tensor cores (exactly): small blocks.
FP32_CONFIG = Config(32, 32, 8, 2)


class Bounds(NamedTuple):
    """The interval of tokens that each token attends to: `low_t` and `high_t` (T,) int32, the latter exclusive."""

    low_t: Tensor
    high_t: Tensor


def flash_attention(
    q_tad: Tensor,
    k_tad: Tensor,
    v_tad: Tensor,
    cu_seqlens: Tensor,
    max_length: int,
    window: int | None = None,
    deterministic: bool = False,
    bounds: Bounds | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v inside each packed document.

    Args:
        q_tad, k_tad, v_tad: (T, A, D), one type of fp16, bf16, fp32; D from 16 to 128, a multiple of 8.
        cu_seqlens: (N + 1,) int32 cumulative document lengths; unused entries repeat the last value. Tokens after it
            get zeros.
        max_length: no document is longer; part of the common interface, this kernel does not need it.
        window: attend only where |query - key| <= window; None: the whole document.
        deterministic: accepted for the common interface; the backward is always deterministic.
        bounds: `document_bounds(cu_seqlens, T, window)`, where one call serves many layers.

    Returns:
        (T, A, D) contiguous, in the type of the inputs.

    Raises:
        ValueError: shapes, types or head size are not those above; `check` says what is wrong.
        RuntimeError: the kernels cannot run on this device.
    """
    del max_length, deterministic
    check(q_tad, k_tad, v_tad, window)
    if bounds is None:
        bounds = document_bounds(cu_seqlens, q_tad.shape[0], window)
    out_tad: Tensor = _forward_op(q_tad, k_tad, v_tad, bounds.low_t, bounds.high_t)[0]
    return out_tad


def document_bounds(cu_seqlens: Tensor, tokens: int, window: int | None = None) -> Bounds:
    """The interval that each of `tokens` flattened tokens attends to. No host synchronisation.

    Args:
        cu_seqlens: (N + 1,) int32, never decreasing; zero-length documents may stand anywhere.
        tokens: T.
        window: attend only where |query - key| <= window.
    """
    position_t = torch.arange(tokens, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    next_t = torch.searchsorted(cu_seqlens, position_t, right=True)  # the first document that starts after t
    last = cu_seqlens.shape[0] - 1
    low_t = cu_seqlens[(next_t - 1).clamp(min=0)]
    high_t = cu_seqlens[next_t.clamp(max=last)]
    if window is not None:
        low_t = torch.maximum(low_t, position_t - window)
        high_t = torch.minimum(high_t, position_t + window + 1)
    return Bounds(low_t.int(), torch.maximum(high_t, low_t).int())


def why_not(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    """Why these kernels cannot serve such heads on `device`, or None where they can."""
    if dtype not in DTYPES:
        return f"it computes in fp32, fp16 and bf16, found {dtype}"
    if head_size % 8 or not SMALLEST_HEAD <= head_size <= LARGEST_HEAD:
        return f"it has head sizes {SMALLEST_HEAD} to {LARGEST_HEAD} in steps of 8, found {head_size}"
    return available(device, dtype)


def check(q_tad: Tensor, k_tad: Tensor, v_tad: Tensor, window: int | None) -> None:
    """Raise ValueError where the inputs of `flash_attention` do not fit together or the kernels do not have them."""
    if q_tad.dim() != 3 or not q_tad.shape == k_tad.shape == v_tad.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q_tad, k_tad, v_tad))
        raise ValueError(f"flash_attention: q, k, v have shapes {shapes}; expected the same (tokens, heads, size)")
    if not q_tad.dtype == k_tad.dtype == v_tad.dtype:
        raise ValueError(f"flash_attention: q, k, v have types {q_tad.dtype}, {k_tad.dtype}, {v_tad.dtype}")
    if window is not None and window < 0:
        raise ValueError(f"flash_attention: window is {window}, expected 0 or more")
    reason = why_not(q_tad.device, q_tad.dtype, q_tad.shape[2])
    if reason is not None:
        raise ValueError(f"flash_attention: {reason}")


@torch.library.custom_op("electra_dist::flash_attention", mutates_args=())
def _forward_op(q: Tensor, k: Tensor, v: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Output (T, A, D) and log-sum-exp in log2 (A, T)."""
    tokens, heads, size = q.shape
    q, k, v = (_unit_stride(x) for x in (q, k, v))
    out = torch.empty((tokens, heads, size), dtype=q.dtype, device=q.device)
    lse = torch.empty((heads, tokens), dtype=torch.float32, device=q.device)
    if out.numel() == 0:
        return out, lse
    config, common = _launch("forward", q)
    flash_kernels.forward_kernel[(triton.cdiv(tokens, config.block_m), heads)](
        q, k, v, out, lse, low, high, tokens, size**-0.5 * _LOG2_E,
        *q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *out.stride()[:2], **common,
    )  # fmt: skip
    return out, lse


@_forward_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("electra_dist::flash_attention_backward", mutates_args=())
def _backward_op(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, each (T, A, D) contiguous."""
    tokens, heads, size = q.shape
    grad_out, q, k, v = (_unit_stride(x) for x in (grad_out, q, k, v))
    grad_q, grad_k, grad_v = (torch.empty_like(out) for _ in range(3))
    if out.numel() == 0:
        return grad_q, grad_k, grad_v
    delta = torch.empty_like(lse)
    scale, strides = size**-0.5, (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2])
    config, common = _launch("query_grad", q)
    flash_kernels.query_grad_kernel[(triton.cdiv(tokens, config.block_m), heads)](
        q, k, v, out, grad_out, lse, delta, grad_q, low, high, tokens, scale, scale * _LOG2_E,
        *strides, *out.stride()[:2], *grad_out.stride()[:2], **common,
    )  # fmt: skip
    config, common = _launch("key_grad", q)
    flash_kernels.key_grad_kernel[(triton.cdiv(tokens, config.block_n), heads)](
        q, k, v, grad_out, lse, delta, grad_k, grad_v, low, high, tokens, scale, scale * _LOG2_E,
        *strides, *grad_out.stride()[:2], *out.stride()[:2], **common,
    )  # fmt: skip
    return grad_q, grad_k, grad_v


@_backward_op.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, low, high = inputs
    ctx.save_for_backward(q, k, v, *output, low, high)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        return None, None, None, None, None
    return *_backward_op(grad_out, *ctx.saved_tensors), None, None


torch.library.register_autograd(_forward_op, _backward, setup_context=_save_for_backward)


def config_for(kernel: str, size: int, dtype: torch.dtype, capability: tuple[int, int] | None) -> Config:
    """The configuration of "forward", "query_grad" or "key_grad" on a CUDA device of `capability` (None: no CUDA)."""
    if dtype == torch.float32:
        return FP32_CONFIG
    config = CONFIGS[kernel, _padded(size)]
    if capability in (None, *LARGE_SHARED_MEMORY):
        return config
    return config._replace(stages=min(config.stages, 2), block_n=min(config.block_n, 64))


def _launch(kernel: str, q: Tensor) -> tuple[Config, dict[str, Any]]:
    """The configuration of a kernel for `q`, and the keyword arguments of its launch."""
    capability = torch.cuda.get_device_capability(q.device) if q.is_cuda else None
    config = config_for(kernel, q.shape[2], q.dtype, capability)
    return config, {
        "head_dim": q.shape[2],
        "block_d": _padded(q.shape[2]),
        "block_m": config.block_m,
        "block_n": config.block_n,
        "precision": "ieee",  # fp32 inputs are multiplied exactly, not in TF32
        "num_warps": config.warps,
        "num_stages": config.stages,
        "enable_fp_fusion": True,
    }


def _padded(size: int) -> int:
    """The power of two that a head of `size` is padded to inside the kernels."""
    return max(int(triton.next_power_of_2(size)), 16)


def _unit_stride(x: Tensor) -> Tensor:
    """`x` with neighbouring elements of a head next to each other in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()
