"""Our attention over packed documents, in Triton: bidirectional, exact, with an optional local
window.

What follows which paper: the online softmax and the backward that recomputes the scores from the
saved log-sum-exp are FlashAttention-2's (arXiv 2307.08691, algorithms 1 and 2; sections 3.1 and 3.3
for one block of queries a program). Delta = rowsum(out * grad_out) is FlashAttention's (arXiv
2205.14135, appendix B.4).

What is different: blocks are cut from the flattened T tokens of all rows, not from each document.
The grid is then dense and static whatever the documents' lengths (thousands of unused zero-length
entries cost nothing, short documents share a block), and a block that lies inside one document runs
without any mask (`flash_kernels.py`).

Backward is deterministic by construction, always: one kernel owns each block of queries and writes
its gradient, another owns each block of keys; no atomic addition anywhere. The price is seven
products instead of five.

Query, key and value come in one tensor, as the projection writes them, and their gradients go out
in one of the same shape: nothing is stacked or copied on the way to the projection's backward.

Dropout of the attention weights is inside: its mask is a hash of a seed, the head, the query and
the key (`hashing.py`), made again by each kernel and never in memory.

Everything between the kernel launches is a registered custom operator with a shape function, so
that `torch.compile(fullgraph=True)` passes over it without a graph break.

Letters: T tokens, A heads, D head size, N documents at most.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from electra_dist.model.dropout import draw_seed, kept_levels, mask_scale
from electra_dist.model.kernels import LARGE_SHARED_MEMORY, available, flash_kernels

SMALLEST_HEAD = 16
LARGEST_HEAD = 128
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_LOG2_E = 1.4426950408889634
_TRITON = tuple(int(part) for part in triton.__version__.split(".")[:2])


class Config(NamedTuple):
    """Block sizes and launch parameters of one kernel:
    queries and keys a block, warps, pipeline stages.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int


#: By kernel and padded head size, for half precision. One table instead of an autotuner: an
#: autotuner times (and so synchronises) at a moment that differs between ranks. Replace an entry to
#: try another.
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
    """The interval of tokens that each token attends to:
    `low_t` and `high_t` (T,) int32, the latter exclusive.
    """

    low_t: Tensor
    high_t: Tensor


def flash_attention(
    qkv_t3ad: Tensor,
    cu_seqlens: Tensor,
    window: int | None = None,
    bounds: Bounds | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """dropout(softmax(q k^T / sqrt(D))) v inside each packed document.

    Args:
        qkv_t3ad: (T, 3, A, D), query, key and value in fp16, bf16 or fp32; D from 16 to 128, a
        multiple of 8. cu_seqlens: (N + 1,) int32 cumulative document lengths; unused entries repeat
        the last value. Tokens after it
            get zeros.
        window: attend only where |query - key| <= window; None: the whole document. bounds:
        `document_bounds(cu_seqlens, T, window)`, where one call serves many layers. dropout:
        probability in [0, 1) that a weight is set to zero, rounded to a multiple of 2**-16. seed:
        () int64 on the device, which decides what is dropped; None: drawn by PyTorch's generator of
        the device.

    Returns:
        (T, A, D) contiguous, in the type of the inputs.

    Raises:
        ValueError: shapes, types or head size are not those above; `check` says what is wrong.
        RuntimeError: the kernels cannot run on this device.
    """
    check(qkv_t3ad, window)
    if bounds is None:
        bounds = document_bounds(cu_seqlens, qkv_t3ad.shape[0], window)
    if dropout == 0.0:
        seed = None
    elif seed is None:
        seed = draw_seed(qkv_t3ad.device)
    out_tad: Tensor = _forward_op(qkv_t3ad, bounds.low_t, bounds.high_t, seed, dropout)[0]
    return out_tad


def document_bounds(cu_seqlens: Tensor, tokens: int, window: int | None = None) -> Bounds:
    """The interval that each of `tokens` flattened tokens attends to. No host synchronisation.

    Args:
        cu_seqlens: (N + 1,) int32, never decreasing; zero-length documents may stand anywhere.
        tokens: T.
        window: attend only where |query - key| <= window.
    """
    position_t = torch.arange(tokens, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    # the first document that starts after t
    next_t = torch.searchsorted(cu_seqlens, position_t, right=True)
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
        return (
            f"it has head sizes {SMALLEST_HEAD} to {LARGEST_HEAD} in steps of 8, found {head_size}"
        )
    return available(device, dtype)


def check(qkv_t3ad: Tensor, window: int | None) -> None:
    """Raise ValueError where the inputs of `flash_attention` are no such
    tensors or the kernels do not have them.
    """
    if qkv_t3ad.dim() != 4 or qkv_t3ad.shape[1] != 3:
        raise ValueError(
            f"flash_attention: query, key and value have shape {tuple(qkv_t3ad.shape)};"
            " expected (tokens, 3, heads, size)"
        )
    if window is not None and window < 0:
        raise ValueError(f"flash_attention: window is {window}, expected 0 or more")
    reason = why_not(qkv_t3ad.device, qkv_t3ad.dtype, qkv_t3ad.shape[3])
    if reason is not None:
        raise ValueError(f"flash_attention: {reason}")


@torch.library.custom_op("electra_dist::flash_attention", mutates_args=())
def _forward_op(
    qkv: Tensor, low: Tensor, high: Tensor, seed: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor]:
    """Output (T, A, D) and log-sum-exp in log2 (A, T)."""
    tokens, _, heads, size = qkv.shape
    qkv = _unit_stride(qkv)
    out = torch.empty((tokens, heads, size), dtype=qkv.dtype, device=qkv.device)
    lse = torch.empty((heads, tokens), dtype=torch.float32, device=qkv.device)
    if out.numel() == 0:
        return out, lse
    launch_forward(qkv, out, lse, low, high, seed, dropout)
    return out, lse


@_forward_op.register_fake
def _(
    qkv: Tensor, low: Tensor, high: Tensor, seed: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor]:
    tokens, _, heads, size = qkv.shape
    return qkv.new_empty((tokens, heads, size)), qkv.new_empty((heads, tokens), dtype=torch.float32)


@torch.library.custom_op("electra_dist::flash_attention_backward", mutates_args=())
def _backward_op(
    grad_out: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    low: Tensor,
    high: Tensor,
    seed: Tensor | None,
    dropout: float,
) -> Tensor:
    """Gradient of query, key and value, (T, 3, A, D) contiguous."""
    grad_out = _unit_stride(grad_out)
    qkv = _unit_stride(qkv)
    grad_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    if out.numel() == 0:
        return grad_qkv
    passed = BackwardTensors(
        grad_out, qkv, out, lse, torch.empty_like(lse), grad_qkv, low, high, seed
    )
    launch_query_grad(passed, dropout)
    launch_key_grad(passed, dropout)
    return grad_qkv


@_backward_op.register_fake
def _(grad_out: Tensor, qkv: Tensor, *_: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, low, high, seed, ctx.dropout = inputs
    ctx.save_for_backward(qkv, *output, low, high, seed)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        return None, None, None, None, None
    return _backward_op(grad_out, *ctx.saved_tensors, ctx.dropout), None, None, None, None


torch.library.register_autograd(_forward_op, _backward, setup_context=_save_for_backward)


class BackwardTensors(NamedTuple):
    """What both backward kernels read and write:
    `delta` and the queries' part of `grad_qkv` come of the first.
    """

    grad_out: Tensor
    qkv: Tensor
    out: Tensor
    lse: Tensor
    delta: Tensor
    grad_qkv: Tensor
    low: Tensor
    high: Tensor
    seed: Tensor | None


def launch_forward(
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    low: Tensor,
    high: Tensor,
    seed: Tensor | None,
    dropout: float,
) -> None:
    """Fill `out` and `lse`."""
    tokens, _, heads, size = qkv.shape
    config, common = _launch("forward", qkv, seed)
    flash_kernels.forward_kernel[grid(tokens, config.block_m, heads)](
        qkv, out, lse, low, high, seed, tokens, size**-0.5 * _LOG2_E, *_dropping(seed, dropout),
        *qkv.stride()[:3], *out.stride()[:2], **common,
    )  # fmt: skip


def launch_query_grad(passed: BackwardTensors, dropout: float) -> None:
    """Fill `delta`, and the gradient of the queries in `grad_qkv`."""
    grad_out, qkv, out, lse, delta, grad_qkv, low, high, seed = passed
    config, common = _launch("query_grad", qkv, seed)
    flash_kernels.query_grad_kernel[grid(qkv.shape[0], config.block_m, qkv.shape[2])](
        qkv, out, grad_out, lse, delta, grad_qkv, low, high, seed, *_numbers(passed, dropout),
        *qkv.stride()[:3], *out.stride()[:2], *grad_out.stride()[:2], *grad_qkv.stride()[:3],
        **common,
    )  # fmt: skip


def launch_key_grad(passed: BackwardTensors, dropout: float) -> None:
    """Fill the gradients of keys and values in `grad_qkv`; after `launch_query_grad`."""
    grad_out, qkv, _, lse, delta, grad_qkv, low, high, seed = passed
    config, common = _launch("key_grad", qkv, seed)
    flash_kernels.key_grad_kernel[grid(qkv.shape[0], config.block_n, qkv.shape[2])](
        qkv, grad_out, lse, delta, grad_qkv, low, high, seed, *_numbers(passed, dropout),
        *qkv.stride()[:3], *grad_out.stride()[:2], *grad_qkv.stride()[:3], **common,
    )  # fmt: skip


def _numbers(passed: BackwardTensors, dropout: float) -> tuple[int, float, float, int, float]:
    """What both backward kernels take between tensors and strides."""
    scale = passed.qkv.shape[3] ** -0.5
    threshold, keep_scale = _dropping(passed.seed, dropout)
    return passed.qkv.shape[0], scale * keep_scale, scale * _LOG2_E, threshold, keep_scale


def grid(tokens: int, block: int, heads: int) -> tuple[int, int]:
    """Programs of a launch: blocks of all tokens on x, which has room for 2**31,
    and heads on y (`LARGEST_GRID_Y`).
    """
    return triton.cdiv(tokens, block), heads


def _dropping(seed: Tensor | None, dropout: float) -> tuple[int, float]:
    """The largest hash, as a signed number, that keeps a weight;
    and what the weights that are kept are scaled by.
    """
    if seed is None:
        return 0, 1.0
    return kept_levels(dropout) * 2**16 - 1 - 2**31, mask_scale(dropout)


def config_for(
    kernel: str, size: int, dtype: torch.dtype, capability: tuple[int, int] | None
) -> Config:
    """The configuration of "forward", "query_grad" or "key_grad" on a
    CUDA device of `capability` (None: no CUDA).
    """
    if dtype == torch.float32:
        return FP32_CONFIG
    config = CONFIGS[kernel, _padded(size)]
    if capability in (None, *LARGE_SHARED_MEMORY):
        return config
    return config._replace(stages=min(config.stages, 2), block_n=min(config.block_n, 64))


def statistics_copies(config: Config, dtype: torch.dtype) -> int:
    """Equal lines in which `key_grad` loads log-sum-exp and delta.

    Counted in code for sm_90, head size 64: 192 copies of 4 bytes with Triton 3.6 and one line, 12
    with four lines; 12 with Triton 3.9 and one line. Versions between were not seen.
    """
    if dtype == torch.float32 or _TRITON >= (3, 9):
        return 1
    return max(32 * config.warps // config.block_m, 1)


def constants(
    kernel: str, config: Config, size: int, dtype: torch.dtype, dropout: bool
) -> dict[str, Any]:
    """What a kernel is compiled for."""
    found: dict[str, Any] = {
        "head_dim": size,
        "block_d": _padded(size),
        "block_m": config.block_m,
        "block_n": config.block_n,
        "precision": "ieee",  # fp32 inputs are multiplied exactly, not in TF32
        "dropout": dropout,
    }
    if kernel == "key_grad":
        found["copies"] = statistics_copies(config, dtype)
    return found


def _launch(kernel: str, qkv: Tensor, seed: Tensor | None) -> tuple[Config, dict[str, Any]]:
    """The configuration of a kernel for `qkv`, and the keyword arguments of its launch."""
    if qkv.is_cuda:
        capability = torch.cuda.get_device_capability(qkv.device)
    else:
        capability = None
    config = config_for(kernel, qkv.shape[3], qkv.dtype, capability)
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    return config, constants(kernel, config, qkv.shape[3], qkv.dtype, seed is not None) | options


def _padded(size: int) -> int:
    """The power of two that a head of `size` is padded to inside the kernels."""
    return max(int(triton.next_power_of_2(size)), 16)


def _unit_stride(x: Tensor) -> Tensor:
    """`x` with neighbouring elements of a head next to each other in memory."""
    if x.stride(-1) == 1:
        return x
    return x.contiguous()
