"""Dropout with cheap masks: the right probability, independent draws,
the gradient of what was kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from electra_dist.model.attention.backends import BACKENDS, build_layout
from electra_dist.model.dropout import dropout, generated_mask, hashed_mask

#: A mask by number generator and one by hash, as without and with compilation.
MASKS = pytest.mark.parametrize("mask", [generated_mask, hashed_mask])
Mask = Callable[[Tensor, Tensor, int], Tensor]


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9, 1e-3])
def test_elements_are_dropped_with_the_probability_and_scaled_by_it(probability: float) -> None:
    torch.manual_seed(0)
    n = 4_000_000
    out = dropout(torch.ones(n), probability, training=True)
    kept = int((out != 0).sum())
    expected, deviation = n * (1 - probability), math.sqrt(n * probability * (1 - probability))
    assert abs(kept - expected) < 5 * deviation + n * 2**-16
    assert out[out != 0].unique().numel() == 1
    assert out.max().item() == pytest.approx(
        1 / (1 - probability), rel=1e-3 if probability < 0.9 else 2e-4
    )


def test_the_expectation_is_exact_although_the_probability_is_rounded() -> None:
    """The scale is the reciprocal of a multiple of 2**-16, whatever was asked for."""
    for probability in (0.1, 0.123456, 1 - 2**-20):
        scale = dropout(torch.ones(10_000_000), probability, training=True).max().item()
        if scale:
            assert 2**16 / scale == pytest.approx(round(2**16 / scale), abs=0.01)


@MASKS
@pytest.mark.parametrize("kept", [1, 2**15, 58982, 2**16 - 1, 2**16])
def test_a_mask_keeps_as_many_as_were_asked_for(mask: Mask, kept: int) -> None:
    n, probability = 2**22, kept / 2**16
    for seed in (0, 1, 2**62 - 1):
        found = int(mask(torch.empty(4, n // 4), torch.tensor(seed), kept).sum())
        assert abs(found - n * probability) <= 5 * math.sqrt(n * probability * (1 - probability))


@MASKS
def test_masks_neighbours_rows_and_columns_are_independent(mask: Mask) -> None:
    def agrees(a: Tensor, b: Tensor) -> bool:
        return abs((a == b).float().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(a.numel())

    x = torch.empty(4096, 512)
    masks = [
        mask(x, torch.tensor(seed), 2**15) for seed in (0, 1, 2, 2**32, 2**32 + 1, 2**61 + 12345)
    ]
    for one in masks:
        flat = one.flatten()
        for lag in (1, 2, 3, 4, 8, 16, 64, 512, 1024, 2**16, 2**20):
            assert agrees(flat[:-lag], flat[lag:])
        for counts in (one.sum(0), one.sum(1)):  # binomial: the variance of the counts is n / 4
            n = one.numel() // counts.numel()
            assert counts.double().var().item() == pytest.approx(
                n / 4, rel=6 * math.sqrt(2 / counts.numel())
            )
    for index, one in enumerate(masks):
        assert all(agrees(one, other) for other in masks[:index])


def test_the_seed_decides() -> None:
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(dropout(torch.ones(5, 7), 0.5, training=True))
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert not torch.equal(draws[0], draws[2])


def test_nothing_is_dropped_outside_training_or_at_zero() -> None:
    x = torch.randn(10)
    assert dropout(x, 0.3, training=False) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_passes_where_the_element_was_kept_and_two_calls_differ(
    compiled: bool,
) -> None:
    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        return dropout(x, 0.5, True), dropout(x, 0.5, True)

    torch.manual_seed(0)
    x = torch.rand(1000).add_(1).requires_grad_()
    one, other = (torch.compile(twice, fullgraph=True) if compiled else twice)(x)
    assert not torch.equal(one != 0, other != 0)
    (gradient,) = torch.autograd.grad(one.sum() + 3 * other.sum(), x)
    torch.testing.assert_close(gradient, ((one != 0) * 2.0 + (other != 0) * 6.0))


def test_a_compiled_layer_keeps_no_mask() -> None:
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    x = torch.randn(64, 1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = torch.compile(lambda x: dropout(x, 0.5, True), fullgraph=True)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, (out != 0) * 2.0)
    assert all(tensor.numel() <= 1 for tensor in kept)


@pytest.mark.parametrize("compiled", [False, True])
def test_sdpa_with_dropout_is_the_formula_on_the_weights_that_were_kept(compiled: bool) -> None:
    b, length, heads, size = 2, 12, 2, 12
    q, k = (torch.randn(b, length, heads, size, requires_grad=True) for _ in range(2))
    # the output shows the weights themselves
    v = torch.eye(length).expand(b, heads, length, length).transpose(1, 2)
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 12])
    layout = build_layout(
        documents, torch.tensor([0, 5, 12, 24], dtype=torch.int32), "sdpa", torch.float32
    )
    attend = torch.compile(BACKENDS["sdpa"], fullgraph=True) if compiled else BACKENDS["sdpa"]
    out = attend(torch.stack([q, k, v], 2), layout, 0.25).transpose(1, 2)
    plain = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), layout.mask
    )
    kept = out != 0
    expected = torch.where(kept, plain / 0.75, 0.0)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-6)
    inside = (layout.mask == 0).expand_as(kept)
    assert 0.55 < kept[inside].float().mean().item() < 0.95
    assert not kept[~inside].any()
    upstream = torch.randn(out.shape)
    for found, wanted in zip(
        *(torch.autograd.grad(x, (q, k), upstream) for x in (out, expected)), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
