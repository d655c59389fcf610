"""Attention over packed documents for `kernels.py`: the same queries, keys and values through every
implementation.

Comes in: a case (tokens, heads, document length). Goes out: seconds forward, forward and backward,
and of what changes with the documents; and the error against SDPA in fp32 on one row.

Letters: B rows, L row length, T = B x L tokens, A heads, D head size, N documents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from attempts import Figures
from torch import Tensor
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from electra_dist.config import sequence_entries
from electra_dist.errors import UserError
from electra_dist.model.attention import backends

#: A row is no shorter: short documents share one, as in training.
SHORTEST_ROW = 512
#: Documents of the mixed case: log-uniform between these, in rows of the latter.
MIXED = (16, 2048)
FORWARD_AND_BACKWARD = 3


class AttentionCase(NamedTuple):
    """`length` of every document, None for mixed lengths; `tokens` in all."""

    length: int | None
    tokens: int
    heads: int
    head_size: int

    def __str__(self) -> str:
        if self.length is None:
            return "documents of mixed lengths"
        return f"documents of {self.length}"

    @property
    def row(self) -> int:
        """L: rows are filled by whole documents."""
        if self.length is None:
            wanted = MIXED[1]
        else:
            wanted = max(self.length, SHORTEST_ROW)
        return min(wanted, self.tokens)

    @property
    def rows(self) -> int:
        """B."""
        return max(self.tokens // self.row, 1)


class Inputs(NamedTuple):
    """qkv (B, L, 3, A, D) with gradient, documents (B, L), cu_seqlens (N + 1,), and the gradient of
    the output.

    Query, key and value are one tensor, as the projection of a layer writes them. So is their
    gradient: what a peer needs to make one of it counts.
    """

    qkv: Tensor
    documents: Tensor
    cu_seqlens: Tensor
    grad: Tensor
    squared_lengths: int


def document_lengths(case: AttentionCase) -> list[int]:
    """Lengths of the documents of one row after another."""
    rng = np.random.default_rng(0)
    lengths: list[int] = []
    for _ in range(case.rows):
        left = case.row
        while left:
            wanted = case.length or int(np.exp(rng.uniform(*np.log(MIXED))))
            lengths.append(min(wanted, left))
            left -= lengths[-1]
    return lengths


def make_inputs(case: AttentionCase, device: torch.device, dtype: torch.dtype) -> Inputs:
    lengths = document_lengths(case)
    generator = torch.Generator(device=device).manual_seed(0)
    shapes = [(case.rows, case.row, *three, case.heads, case.head_size) for three in ((3,), ())]
    qkv, grad = (
        torch.randn(shape, generator=generator, device=device).to(dtype) for shape in shapes
    )
    ends = np.full(
        sequence_entries(len(lengths), case.rows, max(4, case.row // 8)) + 1, case.rows * case.row
    )
    # the shape that the loader makes
    ends[: len(lengths) + 1] = np.concatenate([[0], np.cumsum(lengths)])
    documents = np.repeat(np.arange(len(lengths)), lengths).reshape(case.rows, case.row)
    return Inputs(
        qkv.requires_grad_(),
        torch.from_numpy(documents.astype(np.int32)).to(device),
        torch.from_numpy(ends.astype(np.int32)).to(device),
        grad,
        sum(length**2 for length in lengths),
    )


class Peer(NamedTuple):
    """prepare: what is done once a step when the documents change;
    attend: (B, L, A, D) with what that gave.
    """

    prepare: Callable[[Inputs], Any]
    attend: Callable[[Inputs, Any], Tensor]


def ours_or_pytorch(backend: str, inputs: Inputs) -> Peer:
    """A backend of `electra_dist.model.attention.backends`, refused where it cannot run."""
    qkv = inputs.qkv
    reason = backends.why_not(backend, qkv.device, qkv.dtype, qkv.shape[4], 0.0)
    if reason is not None:
        raise UserError(f"cannot run here: {reason}")
    attend = backends.BACKENDS[backend]
    return Peer(
        lambda i: backends.build_layout(i.documents, i.cu_seqlens, backend, qkv.dtype),
        lambda i, layout: attend(i.qkv, layout, 0.0),
    )


def flex(inputs: Inputs) -> Peer:
    """FlexAttention, compiled, with a block mask of the documents,
    which is built by a compiled function too.
    """
    if not inputs.qkv.is_cuda:
        raise UserError("cannot run here: FlexAttention has no backward on a CPU")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    attend = torch.compile(flex_attention, dynamic=False)
    build = torch.compile(create_block_mask, dynamic=False)
    documents = inputs.documents
    rows, length = documents.shape

    def same_document(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return documents[b, q] == documents[b, k]

    def attended(i: Inputs, mask: Any) -> Tensor:
        out: Tensor = attend(*(x.transpose(1, 2) for x in i.qkv.unbind(2)), block_mask=mask)
        return out.transpose(1, 2)

    return Peer(
        lambda i: build(same_document, rows, None, length, length, device=documents.device),
        attended,
    )


def untrimmed(inputs: Inputs) -> Peer:
    """`varlen_attn` with an entry for every document that there could be,
    as before the loader left out empty ones.
    """
    rows, length = inputs.documents.shape
    missing = rows * (max(4, length // 8) + 1) + 1 - len(inputs.cu_seqlens)
    padded = F.pad(inputs.cu_seqlens, (0, missing), value=inputs.documents.numel())
    peer = ours_or_pytorch("varlen", inputs)
    return Peer(lambda i: peer.prepare(i._replace(cu_seqlens=padded)), peer.attend)


#: Name in the table -> how to make it.
ATTENTION: dict[str, Callable[[Inputs], Peer]] = {
    "ours (triton)": lambda i: ours_or_pytorch("triton", i),
    "varlen_attn": lambda i: ours_or_pytorch("varlen", i),
    "varlen_attn, untrimmed": untrimmed,
    "FlexAttention, compiled": flex,
    "SDPA, block mask": lambda i: ours_or_pytorch("sdpa", i),
}


def measure_attention(
    name: str, case: AttentionCase, device: torch.device, rate: float, run_seconds: float
) -> Figures:
    """Figures of one implementation; raises `UserError` where it cannot run."""
    inputs = make_inputs(case, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    peer = ATTENTION[name](inputs)
    prepared = peer.prepare(inputs)

    def forward() -> Tensor:
        return peer.attend(inputs, prepared)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), inputs.qkv, inputs.grad)

    error = relative_error(forward(), inputs)
    seconds = {
        "forward_seconds": timed(forward, run_seconds),
        "forward_backward_seconds": timed(both, run_seconds),
        "prepare_seconds": timed(lambda: peer.prepare(inputs), run_seconds),
    }
    flops = FORWARD_AND_BACKWARD * 4.0 * inputs.squared_lengths * case.heads * case.head_size
    achieved = flops / seconds["forward_backward_seconds"]
    return seconds | {"flops_per_s": achieved, "utilisation": achieved / rate, "error": error}


def timed(function: Callable[[], Any], run_seconds: float) -> float:
    """Median seconds of a call, warmed up; the device is waited for outside of the calls."""
    for _ in range(2):
        function()
    measurement = Timer("f()", globals={"f": function}, num_threads=torch.get_num_threads())
    return float(measurement.blocked_autorange(min_run_time=run_seconds).median)


@torch.no_grad()
def relative_error(out: Tensor, inputs: Inputs) -> float:
    """Of the first row, against SDPA with a block mask in fp32."""
    q, k, v = (x.float().transpose(1, 2) for x in inputs.qkv[:1].unbind(2))
    row = inputs.documents[:1]
    expected = F.scaled_dot_product_attention(
        q, k, v, attn_mask=(row[:, None, :, None] == row[:, None, None, :])
    )
    difference = out[:1].float() - expected.transpose(1, 2)
    return float(difference.norm() / expected.norm())
