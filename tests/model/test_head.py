"""The generator head's PyTorch backends against float64 formulas, and against each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from electra_dist.errors import ConfigError
from electra_dist.model import head
from electra_dist.model.head import HeadOutput, masked_lm_head

SHAPES = [(37, 16, 300), (5, 8, 128), (64, 32, 1000), (3, 4, 7), (700, 16, 1500), (1, 8, 129)]
BACKENDS = ["torch", "chunked"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks even for the small vocabularies of these tests."""
    monkeypatch.setattr(head, "_SMALLEST_CHUNK", 128)
    monkeypatch.setattr(head, "_CHUNK_LOGITS_CPU", 2**14)


def inputs(
    rows: int, size: int, vocabulary: int, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + vocabulary)
    return {
        "hidden_mh": torch.randn(rows, size, generator=generator).to(dtype).requires_grad_(),
        "weight_vh": (torch.randn(vocabulary, size, generator=generator) * 0.7)
        .to(dtype)
        .requires_grad_(),
        "bias_v": torch.randn(vocabulary, generator=generator).to(dtype).requires_grad_(),
        "targets_m": torch.randint(vocabulary, (rows,), generator=generator),
        "keys_m": torch.randint(-(2**63), 2**63 - 1, (rows,), generator=generator),
    }


def reference(
    given: dict[str, torch.Tensor], weights_m: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Losses and gradients of their weighted sum, in float64."""
    leaves = [
        given[name].detach().double().requires_grad_()
        for name in ("hidden_mh", "weight_vh", "bias_v")
    ]
    logits = leaves[0] @ leaves[1].t() + leaves[2]
    nll = F.cross_entropy(logits, given["targets_m"].long(), reduction="none")
    return nll.detach(), list(torch.autograd.grad((nll * weights_m).sum(), leaves))


def run(
    given: dict[str, torch.Tensor], weights_m: torch.Tensor, backend: str
) -> tuple[HeadOutput, list[torch.Tensor]]:
    out = masked_lm_head(**given, backend=backend)
    leaves = [given[name] for name in ("hidden_mh", "weight_vh", "bias_v")]
    return out, list(torch.autograd.grad((out.nll_m * weights_m).sum(), leaves))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_equal_float64(shape: tuple[int, int, int], backend: str) -> None:
    given = inputs(*shape)
    weights = torch.rand(shape[0])
    weights[::3] = 0.0  # unused slots
    out, grads = run(given, weights, backend)
    nll, expected = reference(given, weights)
    assert out.nll_m.dtype == torch.float32
    torch.testing.assert_close(out.nll_m.double(), nll, rtol=1e-5, atol=1e-5)
    for got, want, name in zip(grads, expected, ("hidden", "weight", "bias"), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_correct_says_whether_the_target_is_the_most_probable_entry(
    shape: tuple[int, int, int], backend: str
) -> None:
    given = inputs(*shape)
    logits = (
        given["hidden_mh"].double() @ given["weight_vh"].double().t() + given["bias_v"].double()
    )
    best = logits.argmax(1)
    given["targets_m"] = torch.where(torch.arange(shape[0]) % 2 == 0, best, given["targets_m"])
    out = masked_lm_head(**given, backend=backend)
    assert torch.equal(out.correct_m, best == given["targets_m"])
    assert out.correct_m.dtype == torch.bool
    assert out.samples_m.dtype == torch.int64
    assert not out.correct_m.requires_grad
    assert not out.samples_m.requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_top_5_says_whether_the_target_is_among_the_five_most_probable_entries(
    shape: tuple[int, int, int], backend: str
) -> None:
    """Against a whole sort in float64; the targets are of the ranks 0 to 9."""
    given = inputs(*shape)
    logits = (
        given["hidden_mh"].double() @ given["weight_vh"].double().t() + given["bias_v"].double()
    )
    ranks = torch.arange(shape[0]) % min(10, shape[2])
    order = logits.argsort(dim=1, descending=True)
    given["targets_m"] = order.gather(1, ranks[:, None]).squeeze(1)
    out = masked_lm_head(**given, backend=backend)
    assert torch.equal(out.in_top5_m, ranks < 5)
    assert out.in_top5_m.dtype == torch.bool
    assert not out.in_top5_m.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_both_backends_draw_the_same_tokens(dtype: torch.dtype, temperature: float) -> None:
    given = inputs(500, 32, 1500, dtype)
    plain = masked_lm_head(**given, temperature=temperature, backend="torch")
    chunked = masked_lm_head(**given, temperature=temperature, backend="chunked")
    assert torch.equal(plain.samples_m, chunked.samples_m)
    assert torch.equal(plain.correct_m, chunked.correct_m)
    assert torch.equal(plain.in_top5_m, chunked.in_top5_m)
    torch.testing.assert_close(plain.nll_m, chunked.nll_m, rtol=1e-5, atol=1e-5)


def test_samples_follow_the_softmax_of_the_logits() -> None:
    given = inputs(1, 8, 300)
    count = 40_000
    many = {**given, "hidden_mh": given["hidden_mh"].detach().expand(count, -1).contiguous()}
    many["targets_m"] = given["targets_m"].expand(count)
    many["keys_m"] = torch.arange(count) * 7919
    with torch.no_grad():
        samples = masked_lm_head(**many, temperature=1.5, backend="chunked").samples_m
        logits = (
            given["hidden_mh"].double() @ given["weight_vh"].double().t() + given["bias_v"].double()
        )
    expected = torch.softmax(logits[0] / 1.5, 0) * count
    observed = torch.bincount(samples, minlength=300).double()
    cells = expected >= 5
    statistic = float(((observed - expected) ** 2 / expected)[cells].sum())
    degrees = int(cells.sum())
    assert abs(statistic - degrees) < 5 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_within_its_rounding(dtype: torch.dtype, backend: str) -> None:
    given = inputs(64, 32, 1000, dtype)
    weights = torch.full((64,), 1.0 / 64)
    out, grads = run(given, weights, backend)
    nll, expected = reference(given, weights)
    assert out.nll_m.dtype == torch.float32
    assert ((out.nll_m.double() - nll).norm() / nll.norm()).item() < 1e-2
    for got, want in zip(grads, expected, strict=True):
        assert got.dtype == dtype
        assert ((got.double() - want).norm() / want.norm()).item() < 2e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_logits_stay_finite(backend: str) -> None:
    given = inputs(8, 4, 300)
    with torch.no_grad():
        given["bias_v"][17] = 3e4
        given["bias_v"][200:] = -3e4
    out, grads = run(given, torch.ones(8), backend)
    assert (out.samples_m == 17).all()
    assert all(torch.isfinite(t).all() for t in (out.nll_m, *grads))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_masked_positions_give_empty_outputs_and_zero_gradients(backend: str) -> None:
    given = inputs(4, 8, 300)
    empty = {**given, "hidden_mh": torch.zeros(0, 8, requires_grad=True)}
    empty["targets_m"], empty["keys_m"] = given["targets_m"][:0], given["keys_m"][:0]
    out, grads = run(empty, torch.zeros(0), backend)
    assert [t.shape for t in out] == [(0,)] * 4
    assert all(float(g.abs().sum()) == 0.0 for g in grads)


def test_one_weight_may_serve_as_embedding_and_as_output() -> None:
    given = inputs(20, 8, 300)
    weight, rows = given["weight_vh"], torch.arange(20)

    def tied(backend: str) -> torch.Tensor:
        hidden = F.embedding(rows, weight)
        out = masked_lm_head(
            hidden, weight, given["bias_v"], given["targets_m"], given["keys_m"], backend=backend
        )
        return torch.autograd.grad(out.nll_m.sum(), weight)[0]

    torch.testing.assert_close(tied("chunked"), tied("torch"), rtol=1e-4, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_chunked_backend_never_holds_masked_times_vocabulary(temperature: float) -> None:
    rows, size, vocabulary = 200, 8, 4000
    given = inputs(rows, size, vocabulary)
    with LargestTensor() as seen:
        masked_lm_head(**given, temperature=temperature, backend="chunked").nll_m.sum().backward()
    assert seen.elements <= max(2**15, vocabulary * size)
    assert seen.elements < rows * vocabulary / 20
    with LargestTensor() as plain:
        masked_lm_head(**given, temperature=temperature, backend="torch")
    assert plain.elements >= rows * vocabulary


def test_auto_takes_the_chunked_backend_on_cpu() -> None:
    assert head.choose_backend("auto", torch.device("cpu"), torch.bfloat16) == "chunked"


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [(torch.bfloat16, "triton"), (torch.float16, "triton"), (torch.float32, "chunked")],
)
def test_auto_takes_the_kernel_on_cuda_where_it_has_tensor_cores(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, backend: str
) -> None:
    monkeypatch.setattr(head.kernels, "available", lambda *_: None)
    assert head.choose_backend("auto", torch.device("cuda"), dtype) == backend
    # who asks for it gets it
    assert head.choose_backend("triton", torch.device("cuda"), dtype) == "triton"


def test_unknown_backend_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"'chunkd'.*torch, chunked, triton.*did you mean 'chunked'"
    ):
        head.choose_backend("chunkd", torch.device("cpu"), torch.float32)


def test_triton_on_cpu_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(
        ConfigError, match=r"model\.generator_head = triton: .*available here: auto, chunked"
    ):
        head.choose_backend("triton", torch.device("cpu"), torch.float32)
