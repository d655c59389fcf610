"""The Triton attention against float64 SDPA with a block mask.

Not collected by itself: `test_flash_attention.py` runs it in a process of its own, in
Triton's interpreter on CPU (TRITON_INTERPRET=1 must be set before Triton is imported; fp32 only),
or on a CUDA device (fp32, fp16, bf16).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from electra_dist.model import kernels, sampling
from electra_dist.model.attention.backends import build_layout
from electra_dist.model.encoder import Layer
from electra_dist.model.kernels import flash_attention as fa
from electra_dist.model.kernels import generator_head
from electra_dist.model.kernels.flash_attention import document_bounds, flash_attention
from electra_dist.zero.compilation import compile_network

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


def make_inputs(
    tokens: int, heads: int, size: int, dtype: torch.dtype, scale: float = 1.0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens + size)
    made = [torch.randn(tokens, heads, size, generator=generator) * scale for _ in range(3)]
    return [x.to(DEVICE, dtype).requires_grad_() for x in made]


def attend(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, **options: Any) -> Tensor:
    return flash_attention(torch.stack([q, k, v], dim=1), cu, **options)


def relative_error(got: Tensor, expected: Tensor) -> float:
    assert torch.isfinite(got).all()
    return ((got.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, kept: Tensor | None, dropout: float
) -> Tensor:
    """The formula, of (T, A, D) in float64;
    `kept` (A, T, T) are the weights that dropout leaves.
    """
    if kept is None:
        return F.scaled_dot_product_attention(
            *(x.transpose(0, 1) for x in (q, k, v)), attn_mask=mask
        ).transpose(0, 1)
    scores = torch.einsum("tad,sad->ats", q, k) * q.shape[2] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    rounded = 1 - round((1 - dropout) * 2**16) / 2**16
    return torch.einsum("ats,sad->tad", weights * kept / (1 - rounded), v)


def compare(
    qkv: list[Tensor],
    lengths: list[int],
    window: int | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> None:
    """Output and all gradients within the tolerance of the type."""
    mask = reference_mask(lengths, window)
    wide = [x.detach().double().requires_grad_() for x in qkv]
    kept = kept_weights(seed, qkv[0].shape[1], sum(lengths), dropout) if dropout else None
    expected = attention(*wide, mask, kept, dropout)
    options = {"dropout": dropout, "seed": torch.tensor(seed, device=DEVICE)} if dropout else {}
    out = attend(*qkv, cumulative(lengths), window=window, **options)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    tolerance = TOLERANCE[out.dtype]
    assert out.dtype == qkv[0].dtype
    assert relative_error(out, expected) < tolerance
    grads = torch.autograd.grad(out, qkv, grad_out)
    for got, want in zip(
        grads, torch.autograd.grad(expected, wide, grad_out.double()), strict=True
    ):
        # the gradient of a length-1 document is 0 for q and k: only rounding remains there
        assert (
            relative_error(got, want) < tolerance or (got.double() - want).abs().max() < tolerance
        )


def kept_weights(seed: int, heads: int, tokens: int, dropout: float) -> Tensor:
    """The mask of dropout (A, T, T), by the formula in numpy."""

    def mix(x: Any) -> Any:
        x = x ^ (x >> np.uint32(16))
        x = x * np.uint32(sampling.MIX_1)
        x = x ^ (x >> np.uint32(15))
        x = x * np.uint32(sampling.MIX_2)
        return x ^ (x >> np.uint32(15))

    low, high = (np.full(1, half, np.uint32) for half in (seed & 0xFFFFFFFF, seed >> 32))
    offset_1, offset_2 = np.uint32(sampling.KEY_OFFSET_1), np.uint32(sampling.KEY_OFFSET_2)
    head, token = np.arange(heads, dtype=np.uint32)[:, None], np.arange(tokens, dtype=np.uint32)
    first = mix(mix(mix(low + offset_1) ^ high) + head)
    second = mix(mix(mix(high + offset_2) ^ low) ^ head)
    third = mix(mix(first ^ offset_2) + second)
    query_1, query_2, key = mix(first + token), mix(second + token), mix(third + token)
    x = (query_1[:, :, None] ^ key[:, None, :]) * np.uint32(sampling.MIX_1)
    x = ((x ^ (x >> np.uint32(15))) ^ query_2[:, :, None]) * np.uint32(sampling.MIX_2)
    return torch.from_numpy(x.view(np.int32) < round((1 - dropout) * 2**16) * 2**16 - 2**31).to(
        DEVICE
    )


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_float64_attention_inside_documents(
    layout: str, window: int | None, dtype: torch.dtype
) -> None:
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
    torch.testing.assert_close(attend(q, k, v, cumulative([40]), window=0), v)


def test_large_scores_stay_finite_and_right() -> None:
    compare(make_inputs(50, 1, 32, torch.float32, scale=8.0), [30, 20])


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("size", "dropout"), [(32, 0.1), (40, 0.5)])
def test_dropout_is_the_formula_with_the_mask_of_its_seed(
    size: int, dropout: float, dtype: torch.dtype
) -> None:
    compare(make_inputs(99, 2, size, dtype), [5, 64, 1, 29], dropout=dropout, seed=2**61 + 12345)


def test_older_tritons_load_the_statistics_in_several_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fa, "statistics_copies", lambda *_: 4)
    compare(make_inputs(99, 1, 32, torch.float32), [5, 64, 1, 29], dropout=0.3)


def test_weights_are_kept_at_the_rate_and_independently() -> None:
    """The output of unit values shows the weights that were kept;
    the mask of the reference is looked at closer.
    """
    tokens, dropout = 1024, 0.25
    kept = kept_weights(3, 2, tokens, dropout).double()
    deviation = (dropout * (1 - dropout) / tokens) ** 0.5
    for part in (kept, kept_weights(4, 2, tokens, dropout).double()):
        assert abs(part.mean().item() - 0.75) < 5 * deviation / (2 * tokens) ** 0.5
    for axis in (1, 2):  # binomial: the variance of a mean of so many
        assert kept.mean(axis).std().item() == pytest.approx(deviation, rel=0.15)
    centred = kept - 0.75
    pairs = [
        (centred[0], centred[1]),
        (kept_weights(4, 1, tokens, dropout).double()[0] - 0.75, centred[0]),
    ]
    pairs += [
        (centred[0].T, centred[0]),
        (centred[:, 1:], centred[:, :-1]),
        (centred[..., 1:], centred[..., :-1]),
    ]
    pairs += [(centred[:, :, 64:], centred[:, :, :-64]), (centred[:, 64:], centred[:, :-64])]
    pairs += [
        (centred[:, 1:, 1:] * centred[:, :-1, :-1], centred[:, 1:, :-1] * centred[:, :-1, 1:])
    ]
    for one, other in pairs:
        correlation = (one * other).mean() / (one.std() * other.std())
        assert abs(correlation.item()) < 5 / one.numel() ** 0.5
    qkv = torch.zeros(64, 3, 1, 16, device=DEVICE)
    qkv[:, 2] = 1.0
    seeds = [
        flash_attention(qkv, cumulative([64]), dropout=dropout, seed=torch.tensor(s, device=DEVICE))
        for s in (3, 4)
    ]
    expected = kept[0, :64, :64].mean(1) / 0.75
    torch.testing.assert_close(seeds[0][:, 0, 0].double(), expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(*seeds)


@pytest.mark.parametrize("compiled", [False] if INTERPRETED else [False, True])
def test_pytorch_draws_the_seed_and_a_recomputed_layer_draws_it_again(
    make_config: Any, compiled: bool
) -> None:
    model = make_config("tiny", attention_dropout=0.4).model
    layer = Layer(model, model.generator, "triton").to(DEVICE)
    if compiled:
        compile_network(layer)
    hidden = torch.randn(
        2, 20, layer.query_key_value.in_features, device=DEVICE, requires_grad=True
    )
    documents = torch.zeros(2, 20, dtype=torch.int32, device=DEVICE)
    layout = build_layout(documents, cumulative([20, 20]), "triton", torch.float32)
    found = []
    for recompute in (False, True, None):
        torch.manual_seed(5 if recompute is not None else 6)
        if recompute:
            out = checkpoint(layer, hidden, layout, use_reentrant=False, preserve_rng_state=True)
        else:
            out = layer(hidden, layout)
        found.append(
            (out, *torch.autograd.grad(out.square().sum(), [hidden, layer.query_key_value.weight]))
        )
    for one, again, other in zip(*found, strict=True):
        torch.testing.assert_close(one, again)
        assert relative_error(other, one.double()) > 1e-3


def test_one_gradient_goes_back_to_the_projection() -> None:
    """No stack, no concatenation and no copy:
    the operator's own gradient is that of the projection's output.
    """
    projected = torch.randn(60, 3 * 2 * 32, device=DEVICE, requires_grad=True)
    out = flash_attention(projected.view(60, 3, 2, 32), cumulative([31, 29]))
    names, node = [], out.grad_fn
    while node is not None and node.next_functions:
        names.append(node.name())
        node = node.next_functions[0][0]
    assert len(names) == 2
    assert names[1].startswith("View")
    (grad,) = torch.autograd.grad(out.sum(), projected)
    assert grad.is_contiguous()


def test_gradient_that_is_expanded_or_transposed_is_accepted() -> None:
    qkv, cu = make_inputs(40, 2, 32, torch.float32), cumulative([40])
    plain = torch.autograd.grad(attend(*qkv, cu).transpose(1, 2).contiguous().sum(), qkv)
    expanded = torch.autograd.grad(attend(*qkv, cu).sum(), qkv)
    for one, other in zip(plain, expanded, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_after_the_last_document_get_zeros() -> None:
    qkv = make_inputs(50, 1, 32, torch.float32)
    out = attend(*qkv, cumulative([20, 15]))
    assert (out[35:] == 0).all()
    for grad in torch.autograd.grad(out.sum(), qkv):
        assert torch.isfinite(grad).all()
        assert (grad[35:] == 0).all()


def test_no_tokens_give_no_output() -> None:
    qkv = make_inputs(0, 2, 32, torch.float32)
    assert attend(*qkv, cumulative([])).shape == (0, 2, 32)


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
    assert torch.equal(attend(*qkv, cu, bounds=once), attend(*qkv, cu))


def test_backward_is_deterministic() -> None:
    qkv, cu = make_inputs(96, 2, 32, torch.float32), cumulative([50, 46])

    def grads() -> tuple[Tensor, ...]:
        out = attend(*qkv, cu, dropout=0.2, seed=torch.tensor(7, device=DEVICE))
        return torch.autograd.grad(out.square().sum(), qkv)

    for one, other in zip(grads(), grads(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_operators_pass_the_library_check(dropout: float) -> None:
    qkv = torch.stack(make_inputs(20, 1, 16, torch.float32), dim=1).detach()
    seed = torch.tensor(3, device=DEVICE) if dropout else None
    given = (*document_bounds(cumulative([12, 8]), 20), seed, dropout)
    torch.library.opcheck(fa._forward_op, (qkv.requires_grad_(), *given))
    qkv = qkv.detach()
    out, lse = fa._forward_op(qkv, *given)
    torch.library.opcheck(fa._backward_op, (torch.ones_like(out), qkv, out, lse, *given))


def test_compiles_as_one_graph_that_serves_other_documents() -> None:
    graphs = 0

    def count(module: torch.fx.GraphModule, _: object) -> object:
        nonlocal graphs
        graphs += 1
        return module.forward

    compiled = torch.compile(lambda *a: attend(*a) * 2, fullgraph=True, backend=count)
    qkv = make_inputs(40, 1, 32, torch.float32)
    for lengths in ([10, 30, 0], [40, 0, 0], [1, 2, 37]):
        expected = 2 * attend(*qkv, cumulative(lengths))
        torch.testing.assert_close(compiled(*qkv, cumulative(lengths)), expected)
    assert graphs == 1


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_compiled_forward_and_backward_equal_eager(dropout: float) -> None:
    qkv, cu = make_inputs(40, 1, 32, torch.float32), cumulative([11, 29])
    found = []
    for function in (attend, torch.compile(attend, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        found.append(torch.autograd.grad(function(*qkv, cu, dropout=dropout).square().sum(), qkv))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("size", "dtype", "message"),
    [
        (36, torch.float32, "head sizes 16 to 128"),
        (256, torch.float32, "found 256"),
        (32, torch.float64, "float64"),
    ],
)
def test_heads_it_does_not_have_are_refused(size: int, dtype: torch.dtype, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attend(*make_inputs(8, 1, size, dtype), cumulative([8]))


def test_half_precision_is_refused_in_the_interpreter_alone() -> None:
    qkv = make_inputs(8, 1, 32, torch.bfloat16)
    if INTERPRETED:
        with pytest.raises(ValueError, match="interpreter computes correctly in fp32 only"):
            attend(*qkv, cumulative([8]))
    else:
        assert attend(*qkv, cumulative([8])).dtype == torch.bfloat16


def test_other_shapes_and_windows_are_refused() -> None:
    q, k, v = make_inputs(8, 1, 32, torch.float32)
    with pytest.raises(ValueError, match=r"shape \(8, 1, 32\)"):
        flash_attention(q, cumulative([8]))
    with pytest.raises(ValueError, match=r"expected \(tokens, 3, heads, size\)"):
        flash_attention(torch.stack([q, k], dim=1), cumulative([8]))
    with pytest.raises(ValueError, match="window is -1"):
        attend(q, k, v, cumulative([8]), window=-1)


def test_no_axis_of_a_launch_but_the_first_is_long() -> None:
    """Rows of 32,768 tokens, as many as fit in memory,
    and more heads than a configuration may have.
    """
    widest = 2**18  # `config.fields.Width`
    for tokens in (32_768 * 64, 2**31 - 1):
        for config in (*fa.CONFIGS.values(), fa.FP32_CONFIG):
            for block in (config.block_m, config.block_n):
                x, y = fa.grid(tokens, block, widest // fa.SMALLEST_HEAD)
                assert x < 2**31
                assert y <= kernels.LARGEST_GRID_Y
    for positions in (1, 15 * 32_768):
        entries = generator_head._chunk_entries(positions, 2**24)
        assert entries // generator_head._BACKWARD_ENTRIES <= kernels.LARGEST_GRID_Y
