"""Bidirectional attention inside packed documents: one interface, three backends, chosen once
(DESIGN D5).

    sdpa    PyTorch's scaled_dot_product_attention with a block mask: any device, any dtype; the
            reference
    varlen  PyTorch's variable-length flash attention, FlashAttention 2, 3 or 4
            (`flash_implementation`): CUDA, half
            precision, no dropout
    triton  this project's flash kernel (electra_dist.model.kernels.flash_attention), with dropout

Letters: B rows, L row length, T = B x L tokens, A heads, D head size, N documents of a micro-batch,
rounded up.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from electra_dist.errors import UserError
from electra_dist.model import kernels
from electra_dist.model.attention import flash_implementation
from electra_dist.model.dropout import draw, drawn_mask, mask_scale, recomputed

logger = logging.getLogger(__name__)

HALF_DTYPES = (torch.bfloat16, torch.float16)
VARLEN_MAX_HEAD_SIZE = 256
_LEAST_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Layout:
    """Where the documents of a micro-batch lie; built once a forward, read by every layer.

    No tuple: into one DeepSpeed looks for tensors at every call of a module, to hook each of them.

    documents   (B, L)       number of each token's document in its row, -1 on padding (a document
                of its own)
    cu_seqlens  (N + 1,)     int32 cumulative document lengths over the T flattened tokens
    mask        (B, 1, L, L) sdpa: what is added to the scores, 0 inside a document and -inf
                elsewhere; otherwise None
    bounds      2 x (T,)     triton: first token that each token attends to, and the one after the
                last; otherwise None
    """

    documents: Tensor
    cu_seqlens: Tensor
    mask: Tensor | None = None
    bounds: tuple[Tensor, Tensor] | None = None


def build_layout(
    documents_bl: Tensor, cu_seqlens: Tensor, backend: str, dtype: torch.dtype
) -> Layout:
    """The layout that `backend` needs for queries of `dtype`.

    Padding attends to padding, so that no row of the softmax is empty. The mask is additive because
    PyTorch would make it so anew in each layer.
    """
    if backend == "sdpa":
        other = documents_bl[:, None, :, None] != documents_bl[:, None, None, :]
        mask = torch.zeros(other.shape, dtype=dtype, device=other.device).masked_fill_(
            other, float("-inf")
        )
        return Layout(documents_bl, cu_seqlens, mask=mask)
    if backend == "triton":
        from electra_dist.model.kernels.flash_attention import document_bounds

        bounds = document_bounds(cu_seqlens, documents_bl.numel())
        return Layout(documents_bl, cu_seqlens, bounds=(bounds.low_t, bounds.high_t))
    # it takes one of a few lengths: a layer compiles once for all
    torch._dynamo.maybe_mark_dynamic(cu_seqlens, 0)
    return Layout(documents_bl, cu_seqlens)


#: (query, key and value: (B, L, 3, A, D), layout, dropout probability) -> (B, L, A, D)
Attention = Callable[[Tensor, Layout, float], Tensor]


def _sdpa(qkv_bl3ad: Tensor, layout: Layout, probability: float) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in qkv_bl3ad.unbind(2))  # (B, A, L, D)
    if probability > 0.0 and q.device.type == "cpu":
        out = _with_dropout(q, k, v, layout, probability)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.mask, dropout_p=probability)
    return out.transpose(1, 2)


def _with_dropout(
    q_bald: Tensor, k_bald: Tensor, v_bald: Tensor, layout: Layout, probability: float
) -> Tensor:
    """What PyTorch's attention with dropout does on a CPU (the formula,
    softmax in fp32), with cheaper masks.
    """
    assert layout.mask is not None
    scores_ball = (q_bald @ k_bald.transpose(-1, -2)).float() * q_bald.shape[-1] ** -0.5
    weights_ball = (scores_ball + layout.mask).softmax(dim=-1)
    scale = mask_scale(probability)

    def attended(weights_ball: Tensor, drawn: Tensor, v_bald: Tensor) -> Tensor:
        kept_ball = drawn_mask(weights_ball, drawn, probability)
        return (weights_ball * kept_ball * scale).to(v_bald.dtype) @ v_bald

    return recomputed(attended, weights_ball, draw(weights_ball, probability), v_bald.contiguous())


def _varlen(qkv_bl3ad: Tensor, layout: Layout, probability: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    length = qkv_bl3ad.shape[1]  # static, and no document is longer
    q, k, v = qkv_bl3ad.flatten(0, 1).unbind(1)  # (T, A, D)
    out = varlen_attn(q, k, v, layout.cu_seqlens, layout.cu_seqlens, length, length)
    assert isinstance(out, Tensor)  # a pair only when the log-sum-exp is asked for
    return out.view(*qkv_bl3ad.shape[:2], *out.shape[1:])


def _triton(qkv_bl3ad: Tensor, layout: Layout, probability: float) -> Tensor:
    from electra_dist.model.kernels.flash_attention import Bounds, flash_attention

    assert layout.bounds is not None
    bounds = Bounds(*layout.bounds)
    out = flash_attention(
        qkv_bl3ad.flatten(0, 1), layout.cu_seqlens, bounds=bounds, dropout=probability
    )
    return out.view(*qkv_bl3ad.shape[:2], *out.shape[1:])


BACKENDS: dict[str, Attention] = {"sdpa": _sdpa, "varlen": _varlen, "triton": _triton}


def _why_not_varlen(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    if device.type != "cuda":
        return f"it needs a CUDA device, this run is on {device.type}"
    if dtype not in HALF_DTYPES:
        return f"it needs precision.mode bf16 or fp16, found {dtype}"
    if head_size % 8 or head_size > VARLEN_MAX_HEAD_SIZE:
        return (
            f"it needs a head size that is a multiple of 8 up to {VARLEN_MAX_HEAD_SIZE}, found"
            f" {head_size}"
        )
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen (2.10 and later do)"
    return _too_old(device)


def _too_old(device: torch.device) -> str | None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        return (
            "it needs compute capability 8.0 or later, found"
            f" {torch.cuda.get_device_capability(device)}"
        )
    return None


def _why_not_triton(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    reason = kernels.available(device, dtype)
    if reason is not None:
        return reason
    from electra_dist.model.kernels import flash_attention

    return flash_attention.why_not(device, dtype, head_size) or _too_old(device)


def why_not(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    head_size: int,
    dropout: float,
    deterministic: bool = False,
    sequences: int = 0,
) -> str | None:
    """Why this machine cannot run backend `name` for such heads; None when it can.

    sequences: the most entries that `cu_seqlens` may have.
    """
    if name == "sdpa":
        return None
    if name == "triton":
        return _why_not_triton(device, dtype, head_size)
    if dropout > 0:
        return f"it has no dropout, and model.attention_dropout = {dropout}"
    if deterministic:
        return (
            "its backward adds the gradient of the queries in no fixed order, and"
            " train.deterministic = true"
        )
    if sequences > kernels.LARGEST_GRID_Y:
        return (
            f"it has {kernels.LARGEST_GRID_Y:,} documents of a micro-batch at most, and there may"
            f" be {sequences:,}: train.micro_rows x (data.max_documents_per_row + 1)"
        )
    return _why_not_varlen(device, dtype, head_size)


def choose_backend(
    name: str,
    device: torch.device | str,
    dtype: torch.dtype,
    head_size: int,
    dropout: float = 0.0,
    deterministic: bool = False,
    sequences: int = 0,
) -> str:
    """The backend to use for `model.attention = name`; the caller logs it.

    `auto` is varlen on CUDA in half precision, triton there with dropout and for `deterministic`
    training, and sdpa elsewhere. Where the former would be right but cannot run, the next best is
    taken, and the reason is logged as a warning. A backend named outright that cannot run raises
    `UserError` with what can.
    """
    target = torch.device(device)
    given = (target, dtype, head_size, dropout, deterministic, sequences)
    if name == "auto":
        if target.type != "cuda" or dtype not in HALF_DTYPES:
            return "sdpa"
        return _best(("triton",) if deterministic or dropout > 0 else ("varlen", "triton"), given)
    if name not in BACKENDS:
        raise UserError(f"model.attention = {name!r}: expected one of auto, {', '.join(BACKENDS)}")
    reason = why_not(name, *given)
    if reason is not None:
        fits = [other for other in BACKENDS if why_not(other, *given) is None]
        raise UserError(
            f"model.attention = {name}: {reason}; available here: auto, {', '.join(fits)}"
        )
    return name


def _best(
    wanted: tuple[str, ...], given: tuple[torch.device, torch.dtype, int, float, bool, int]
) -> str:
    """The first of `wanted` that can run, or sdpa; why those before it cannot is a warning."""
    reasons = []
    for name in wanted:
        reason = why_not(name, *given)
        if reason is None:
            break
        reasons.append(f"{name}: {reason}")
    else:
        name = "sdpa"
    if reasons:
        if name == "sdpa":
            words = "sdpa with a block mask, slower"
        else:
            words = name
        logger.warning("attention: %s, because of %s", words, "; ".join(reasons))
    return name


def described(backend: str) -> str:
    """The backend, and what runs behind it: `varlen (FA3)`."""
    if backend == "varlen":
        return f"{backend} ({flash_implementation.in_use()})"
    return backend
