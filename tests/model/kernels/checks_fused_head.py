"""The fused generator head against float64 formulas and against the plain PyTorch head.

Not collected by itself: `test_fused_head.py` runs it in a process of its own, in Triton's
interpreter on CPU (TRITON_INTERPRET=1 must be set before Triton is imported; fp32 only), or on a
CUDA device (fp32, fp16, bf16).
"""

from __future__ import annotations

import os

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from electra_dist.errors import ConfigError
from electra_dist.model import head, sampling
from electra_dist.model.head import masked_lm_head
from electra_dist.model.kernels import generator_head as gh
from electra_dist.model.kernels import hashing, head_kernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
HALF = [] if INTERPRETED else [torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 1e-2}
NAMES = ("hidden_mh", "weight_vh", "bias_v")

#: (M, E, V): ragged blocks, embeddings over one and several blocks,
#: one position, one tile, a nearly empty last tile.
SHAPES = [(40, 48, 700), (33, 16, 1000), (1, 8, 129), (70, 100, 300), (5, 32, 128), (64, 20, 7)]


def inputs(
    rows: int, size: int, vocabulary: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows + vocabulary)
    made = {
        "hidden_mh": torch.randn(rows, size, generator=generator),
        "weight_vh": torch.randn(vocabulary, size, generator=generator) * size**-0.5 * 2,
        "bias_v": torch.randn(vocabulary, generator=generator),
    }
    given = {name: value.to(DEVICE, dtype).requires_grad_() for name, value in made.items()}
    given["targets_m"] = torch.randint(vocabulary, (rows,), generator=generator).to(DEVICE)
    given["keys_m"] = torch.randint(-(2**63), 2**63 - 1, (rows,), generator=generator).to(DEVICE)
    return given


def reference(
    given: dict[str, Tensor], weights_m: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Losses, the most probable entries,
    and gradients of the weighted sum of the losses, in float64.
    """
    leaves = [given[name].detach().double().requires_grad_() for name in NAMES]
    logits = leaves[0] @ leaves[1].t() + leaves[2]
    nll = F.cross_entropy(logits, given["targets_m"], reduction="none")
    return nll.detach(), logits.argmax(1), torch.autograd.grad((nll * weights_m).sum(), leaves)


def in_top5(given: dict[str, Tensor]) -> Tensor:
    """Whether the target is among the five largest logits, by sorting them in float64."""
    logits = given["hidden_mh"].double() @ given["weight_vh"].double().t() + given["bias_v"]
    five = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return (five == given["targets_m"][:, None]).any(dim=1)


def use_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's time goes by the number of blocks, not by their size."""
    if INTERPRETED:
        monkeypatch.setattr(gh, "FP32_CONFIG", gh.FP32_CONFIG._replace(block_m=512))
        monkeypatch.setattr(gh, "_FINISH_POSITIONS", 512)


def relative_error(got: Tensor, expected: Tensor) -> float:
    assert torch.isfinite(got).all()
    return ((got.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_accuracy_and_gradients_equal_float64(
    shape: tuple[int, int, int], splits: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gh, "_splits", lambda *_: splits)
    monkeypatch.setattr(gh, "GRAD_LOGITS", shape[0] * 256)  # chunks of two tiles in backward
    given = inputs(*shape, dtype)
    weights = torch.rand(shape[0], generator=torch.Generator().manual_seed(0)).to(DEVICE)
    weights[1::3] = 0.0  # unused slots
    if dtype == torch.float32:  # in half precision, near ties may go either way
        best = reference(given, weights)[1]
        given["targets_m"] = torch.where(
            torch.arange(shape[0], device=DEVICE) % 2 == 0, best, given["targets_m"]
        )
    nll, best, expected = reference(given, weights)
    out = masked_lm_head(**given, backend="triton")
    assert [x.dtype for x in out] == [torch.float32, torch.bool, torch.bool, torch.int64]
    assert relative_error(out.nll_m, nll) < TOLERANCE[dtype]
    assert (out.correct_m != (best == given["targets_m"])).float().mean().item() <= (
        0 if dtype == torch.float32 else 0.05
    )
    assert (out.in_top5_m != in_top5(given)).float().mean().item() <= (
        0 if dtype == torch.float32 else 0.05
    )
    grads = torch.autograd.grad((out.nll_m * weights).sum(), [given[name] for name in NAMES])
    for got, want, name in zip(grads, expected, NAMES, strict=True):
        assert got.dtype == dtype
        assert relative_error(got, want) < TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_the_tokens_of_the_plain_head(
    temperature: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_large_blocks(monkeypatch)
    given = inputs(1500, 16, 500, dtype)
    # products in fp32
    wide = {name: x.float() if x.is_floating_point() else x for name, x in given.items()}
    fused = masked_lm_head(**given, temperature=temperature, backend="triton")
    for backend in ("torch", "chunked"):
        plain = masked_lm_head(**wide, temperature=temperature, backend=backend)
        flips = (plain.samples_m != fused.samples_m).sum().item()
        print(f"{backend}, {dtype}, temperature {temperature}: {flips} of 1500 samples flipped")
        assert flips <= 2


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_follow_the_softmax(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    use_large_blocks(monkeypatch)
    count, vocabulary = 8000, 200
    given = inputs(1, 16, vocabulary)
    many = {**given, "hidden_mh": given["hidden_mh"].detach().expand(count, -1).contiguous()}
    many |= {
        "targets_m": given["targets_m"].expand(count).contiguous(),
        "keys_m": torch.arange(count, device=DEVICE),
    }
    samples = masked_lm_head(**many, temperature=temperature, backend="triton").samples_m
    hidden, weight, bias = (given[name].detach().double() for name in NAMES)
    expected = torch.softmax((hidden @ weight.t() + bias)[0] / temperature, 0) * count
    observed = torch.bincount(samples, minlength=vocabulary)
    cells = expected >= 5
    statistic = float(((observed - expected) ** 2 / expected)[cells].sum())
    degrees = int(cells.sum())
    assert degrees > 50
    assert abs(statistic - degrees) < 4 * (2 * degrees) ** 0.5


@triton.jit
def noise_kernel(keys_ptr, bits_ptr, gumbel_ptr, rows: tl.constexpr, tiles):
    keys = tl.load(keys_ptr + tl.arange(0, rows))
    state_1, state_2 = hashing.key_states(keys)
    for tile in range(tiles):
        bits = hashing.mix(hashing.mix(state_1 + tile) ^ state_2)
        tl.store(bits_ptr + tl.arange(0, rows) * tiles + tile, bits.to(tl.int64))
        noise = head_kernels._gumbel(state_1, state_2, tl.full((), tile, tl.int32))
        tl.store(gumbel_ptr + tl.arange(0, rows) * tiles + tile, noise)


def test_noise_has_the_bits_of_the_pytorch_sampler() -> None:
    keys = torch.randint(-(2**63), 2**63 - 1, (64,), generator=torch.Generator().manual_seed(0)).to(
        DEVICE
    )
    keys[:4] = torch.tensor([0, -1, 2**31, -(2**63)])
    bits = torch.empty(64, 9, dtype=torch.int64, device=DEVICE)
    gumbel = torch.empty(64, 9, device=DEVICE)
    noise_kernel[(1,)](keys, bits, gumbel, 64, 9)
    assert torch.equal(
        bits, sampling.hash_bits(keys[:, None], torch.arange(9, device=DEVICE)[None, :])
    )
    torch.testing.assert_close(gumbel, sampling.gumbel_noise(keys, 0, 9), rtol=1e-5, atol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    given = inputs(8, 16, 300)
    with torch.no_grad():
        given["bias_v"][17] = 3e4
        given["bias_v"][200:] = -3e4
    out = masked_lm_head(**given, backend="triton")
    assert (out.samples_m == 17).all()
    for grad in torch.autograd.grad(out.nll_m.sum(), [given[name] for name in NAMES]):
        assert torch.isfinite(grad).all()


def test_no_masked_positions_give_empty_outputs_and_zero_gradients() -> None:
    given = inputs(4, 16, 300)
    given |= {"hidden_mh": torch.zeros(0, 16, device=DEVICE, requires_grad=True)}
    given |= {"targets_m": given["targets_m"][:0], "keys_m": given["keys_m"][:0]}
    out = masked_lm_head(**given, backend="triton")
    assert [x.shape for x in out] == [(0,)] * 4
    grads = torch.autograd.grad(out.nll_m.sum(), [given[name] for name in NAMES])
    assert all(float(grad.abs().sum()) == 0.0 for grad in grads)


def test_never_allocates_masked_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, vocabulary, sizes = 64, 6000, []
    empty = torch.empty

    def recording(*args: object, **kwargs: object) -> Tensor:
        made = empty(*args, **kwargs)
        sizes.append(made.numel())
        return made

    given = inputs(rows, 16, vocabulary)
    monkeypatch.setattr(gh, "GRAD_LOGITS", rows * 512)
    monkeypatch.setattr(torch, "empty", recording)
    masked_lm_head(**given, backend="triton").nll_m.sum().backward()
    assert max(sizes) <= vocabulary * 16
    assert max(sizes) < rows * vocabulary / 3


def test_operators_pass_the_library_check() -> None:
    given = inputs(6, 16, 200)
    hidden, weight, bias, targets, keys = given.values()
    torch.library.opcheck(gh._forward_op, (hidden, weight, bias, targets, keys, 0.9))
    saved = [x.detach() for x in (hidden, weight, bias)]
    lse = gh._forward_op(*saved, targets, keys, 0.9)[3]
    torch.library.opcheck(gh._backward_op, (torch.ones_like(lse), *saved, targets, lse))


def test_compiles_as_one_graph() -> None:
    given = inputs(10, 16, 200)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = masked_lm_head(
            hidden, weight, bias, given["targets_m"], given["keys_m"], backend="triton"
        )
        return (out.nll_m * ~out.correct_m).sum() + out.samples_m.sum()

    leaves = [given[name] for name in NAMES]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, expected = compiled(*leaves), loss(*leaves)
    torch.testing.assert_close(got, expected)
    for one, other in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_backward_is_deterministic() -> None:
    given = inputs(40, 32, 500)
    leaves = [given[name] for name in NAMES]
    runs = [
        torch.autograd.grad(masked_lm_head(**given, backend="triton").nll_m.sum(), leaves)
        for _ in range(2)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_what_does_not_fit_is_refused() -> None:
    given = inputs(4, 16, 300)
    with pytest.raises(ValueError, match="shapes"):
        masked_lm_head(**{**given, "bias_v": given["bias_v"][:5]}, backend="triton")
    with pytest.raises((ValueError, ConfigError), match=r"torch.float64"):
        masked_lm_head(**{**given, "hidden_mh": given["hidden_mh"].double()}, backend="triton")
    if INTERPRETED:
        with pytest.raises(ConfigError, match="interpreter computes correctly in fp32 only"):
            head.choose_backend("triton", DEVICE, torch.bfloat16)


def test_auto_takes_the_kernel_on_cuda_in_half_precision_only() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert head.choose_backend("auto", DEVICE, dtype) == (
            "chunked" if INTERPRETED else "triton"
        )
    assert head.choose_backend("auto", DEVICE, torch.float32) == "chunked"


@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["triton", "chunked"])
def test_peak_memory_on_the_gpu_is_far_below_masked_times_vocabulary(backend: str) -> None:
    rows, size, vocabulary = 8192, 128, 131_072
    given = inputs(rows, size, vocabulary, torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    masked_lm_head(**given, backend=backend).nll_m.sum().backward()
    peak = torch.cuda.max_memory_allocated() - before
    assert peak < rows * vocabulary * 4 / 8


@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["triton", "chunked"])
def test_never_synchronises_with_the_host(backend: str) -> None:
    given = inputs(256, 128, 3000, torch.bfloat16)
    masked_lm_head(**given, backend=backend).nll_m.sum().backward()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        masked_lm_head(**given, backend=backend).nll_m.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
