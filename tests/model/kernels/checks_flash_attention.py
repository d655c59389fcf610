"""The Triton attention against float64 SDPA with a block mask.

Not collected by itself: `test_model_flash_attention.py` runs it in a process of its own, in Triton's interpreter on
CPU (TRITON_INTERPRET=1 must be set before Triton is imported; fp32 only), or on a CUDA device (fp32, fp16, bf16).
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from electra_dist.model.kernels import flash_attention as fa
from electra_dist.model.kernels.flash_attention import document_bounds, flash_attention

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
HALF = [] if INTERPRETED else [torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}

#: Document lengths; zeros are unused entries. Blocks are 32 tokens in fp32.
LAYOUTS = {
    "one document fills the row": [96],
    "length-1 documents": [1] * 50,
    "boundaries on block edges": [32, 64, 32],
    "a document across several blocks": [5, 90, 7],
    "zero-length entries in the middle and at the end": [0, 13, 0, 0, 40, 1, 0, 21, 0, 0, 0],
    "documents and a padding tail": [17, 30, 49],
    "fewer tokens than a block": [3, 4],
    "one token": [1],
}


def cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int().to(DEVICE)


def reference_mask(lengths: list[int], window: int | None) -> Tensor:
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = documents[:, None] == documents[None, :]
    if window is not None:
        position = torch.arange(len(documents))
        mask &= (position[:, None] - position[None, :]).abs() <= window
    return mask.to(DEVICE)


def make_inputs(tokens: int, heads: int, size: int, dtype: torch.dtype, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens + size)
    made = [torch.randn(tokens, heads, size, generator=generator) * scale for _ in range(3)]
    return [x.to(DEVICE, dtype).requires_grad_() for x in made]


def relative_error(got: Tensor, expected: Tensor) -> float:
    assert torch.isfinite(got).all()
    return ((got.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def compare(qkv: list[Tensor], lengths: list[int], window: int | None = None) -> None:
    """Output and all gradients within the tolerance of the type."""
    mask = reference_mask(lengths, window)
    wide = [x.detach().double().requires_grad_() for x in qkv]
    expected = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in wide), attn_mask=mask).transpose(0, 1)
    out = flash_attention(*qkv, cumulative(lengths), max(lengths), window)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    tolerance = TOLERANCE[out.dtype]
    assert out.dtype == qkv[0].dtype
    assert relative_error(out, expected) < tolerance
    grads = torch.autograd.grad(out, qkv, grad_out)
    for got, want in zip(grads, torch.autograd.grad(expected, wide, grad_out.double()), strict=True):
        # the gradient of a length-1 document is 0 for q and k: only rounding remains there
        assert relative_error(got, want) < tolerance or (got.double() - want).abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_float64_attention_inside_documents(layout: str, window: int | None, dtype: torch.dtype) -> None:
    lengths = LAYOUTS[layout]
    compare(make_inputs(sum(lengths), 2, 32, dtype), lengths, window)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("size", [16, 40, 64, 96, 128])
def test_head_sizes(size: int, dtype: torch.dtype) -> None:
    compare(make_inputs(45, 2, size, dtype), [20, 25])


@pytest.mark.parametrize("seed", range(4))
def test_random_document_boundaries(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = (torch.rand(9, generator=generator) ** 3 * 60).int().tolist()
    window = None if seed % 2 else int(torch.randint(1, 40, (1,), generator=generator))
    compare(make_inputs(sum(lengths), 1, 32, torch.float32), lengths, window)


def test_window_of_zero_gives_each_token_its_own_value() -> None:
    q, k, v = make_inputs(40, 1, 32, torch.float32)
    torch.testing.assert_close(flash_attention(q, k, v, cumulative([40]), 40, window=0), v)


def test_large_scores_stay_finite_and_right() -> None:
    compare(make_inputs(50, 1, 32, torch.float32, scale=8.0), [30, 20])


def test_slices_of_one_projection_are_read_in_place() -> None:
    fused = torch.randn(60, 3, 2, 32, device=DEVICE)
    separate = [fused[:, i].contiguous().requires_grad_() for i in range(3)]
    views = [fused[:, i].detach().requires_grad_() for i in range(3)]
    cu = cumulative([31, 29])
    got, expected = flash_attention(*views, cu, 31), flash_attention(*separate, cu, 31)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    grads = torch.autograd.grad(got.sum(), views), torch.autograd.grad(expected.sum(), separate)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_gradient_that_is_expanded_or_transposed_is_accepted() -> None:
    qkv, cu = make_inputs(40, 2, 32, torch.float32), cumulative([40])
    plain = torch.autograd.grad(flash_attention(*qkv, cu, 40).transpose(1, 2).contiguous().sum(), qkv)
    expanded = torch.autograd.grad(flash_attention(*qkv, cu, 40).sum(), qkv)
    for one, other in zip(plain, expanded, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_after_the_last_document_get_zeros() -> None:
    qkv = make_inputs(50, 1, 32, torch.float32)
    out = flash_attention(*qkv, cumulative([20, 15]), 20)
    assert (out[35:] == 0).all()
    for grad in torch.autograd.grad(out.sum(), qkv):
        assert torch.isfinite(grad).all()
        assert (grad[35:] == 0).all()


def test_no_tokens_give_no_output() -> None:
    qkv = make_inputs(0, 2, 32, torch.float32)
    assert flash_attention(*qkv, cumulative([]), 1).shape == (0, 2, 32)


@pytest.mark.parametrize("window", [None, 0, 3])
def test_bounds_are_the_document_cut_to_the_window(window: int | None) -> None:
    lengths = [0, 4, 0, 1, 7, 0, 0]
    mask = reference_mask(lengths, window).cpu()
    low, high = (x.tolist() for x in document_bounds(cumulative(lengths), 12, window))
    assert [(low[t], high[t]) for t in range(12)] == [
        (int(mask[t].nonzero().min()), int(mask[t].nonzero().max()) + 1) for t in range(12)
    ]


def test_bounds_may_be_computed_once_for_many_layers() -> None:
    qkv, cu = make_inputs(40, 1, 32, torch.float32), cumulative([10, 30])
    once = document_bounds(cu, 40)
    assert torch.equal(flash_attention(*qkv, cu, 30, bounds=once), flash_attention(*qkv, cu, 30))


def test_backward_is_deterministic() -> None:
    qkv, cu = make_inputs(96, 2, 32, torch.float32), cumulative([50, 46])

    def grads() -> tuple[Tensor, ...]:
        out = flash_attention(*qkv, cu, 50, deterministic=True)
        return torch.autograd.grad(out.square().sum(), qkv)

    for one, other in zip(grads(), grads(), strict=True):
        assert torch.equal(one, other)


def test_operators_pass_the_library_check() -> None:
    q, k, v = make_inputs(20, 1, 16, torch.float32)
    low, high = document_bounds(cumulative([12, 8]), 20)
    torch.library.opcheck(fa._forward_op, (q, k, v, low, high))
    out, lse = fa._forward_op(q.detach(), k.detach(), v.detach(), low, high)
    saved = (torch.ones_like(out), q.detach(), k.detach(), v.detach(), out, lse, low, high)
    torch.library.opcheck(fa._backward_op, saved)


def test_compiles_as_one_graph_that_serves_other_documents() -> None:
    graphs = 0

    def count(module: torch.fx.GraphModule, _: object) -> object:
        nonlocal graphs
        graphs += 1
        return module.forward

    compiled = torch.compile(lambda *a: flash_attention(*a, 40) * 2, fullgraph=True, backend=count)
    qkv = make_inputs(40, 1, 32, torch.float32)
    for lengths in ([10, 30, 0], [40, 0, 0], [1, 2, 37]):
        expected = 2 * flash_attention(*qkv, cumulative(lengths), 40)
        torch.testing.assert_close(compiled(*qkv, cumulative(lengths)), expected)
    assert graphs == 1


def test_compiled_forward_and_backward_equal_eager() -> None:
    qkv, cu = make_inputs(40, 1, 32, torch.float32), cumulative([11, 29])
    compiled = torch.compile(lambda *a: flash_attention(*a, 40).square(), fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*qkv, cu).sum(), qkv)
    for one, other in zip(got, torch.autograd.grad(flash_attention(*qkv, cu, 40).square().sum(), qkv), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("size", "dtype", "message"),
    [(36, torch.float32, "head sizes 16 to 128"), (256, torch.float32, "found 256"), (32, torch.float64, "float64")],
)
def test_heads_it_does_not_have_are_refused(size: int, dtype: torch.dtype, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flash_attention(*make_inputs(8, 1, size, dtype), cumulative([8]), 8)


@pytest.mark.skipif(not INTERPRETED, reason="about the interpreter")
def test_half_precision_in_the_interpreter_is_refused() -> None:
    with pytest.raises(ValueError, match="interpreter computes correctly in fp32 only"):
        flash_attention(*make_inputs(8, 1, 32, torch.bfloat16), cumulative([8]), 8)


def test_mixed_types_and_shapes_are_refused() -> None:
    q, k, v = make_inputs(8, 1, 32, torch.float32)
    with pytest.raises(ValueError, match="types"):
        flash_attention(q, k.double(), v, cumulative([8]), 8)
    with pytest.raises(ValueError, match="shapes"):
        flash_attention(q, k[:4], v, cumulative([8]), 8)
    with pytest.raises(ValueError, match="window is -1"):
        flash_attention(q, k, v, cumulative([8]), 8, window=-1)
