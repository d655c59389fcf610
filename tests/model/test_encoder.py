"""Attention and encoder: documents stay apart, padding is harmless, layers compile as one graph."""

from __future__ import annotations

import itertools
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.errors import UserError
from electra_dist.model.attention.backends import BACKENDS, Layout, build_layout, choose_backend
from electra_dist.model.encoder import Encoder
from electra_dist.model.inputs import rows_of_documents, to_device
from electra_dist.zero.compilation import compile_network

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def attention_by_document(q: Tensor, k: Tensor, v: Tensor, documents: Tensor) -> Tensor:
    """Softmax attention in float64, one document after the other."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(q.shape[0]):
        for document in documents[b].unique():
            i = (documents[b] == document).nonzero().flatten()
            for head in range(q.shape[2]):
                qs, ks, vs = (x[b, i, head].double() for x in (q, k, v))
                out[b, i, head] = torch.softmax(qs @ ks.T / q.shape[3] ** 0.5, -1) @ vs
    return out


@pytest.fixture
def packed(make_documents: Any) -> Any:
    """Rows of several documents, one of a single token,
    a full row and one that is nearly all padding.
    """
    rows = [make_documents([7, 2, 20]), make_documents([32]), make_documents([3])]
    rows[0].append([9])
    return to_device(rows_of_documents(rows, 32, SPECIAL_TOKENS.pad), "cpu")


def random_qkv(batch: Any, heads: int = 2, size: int = 16) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    shape = (*batch.tokens.shape, heads, size)
    return [torch.randn(shape, generator=rng).requires_grad_() for _ in range(3)]


def test_sdpa_equals_attention_one_document_at_a_time_with_gradients(packed: Any) -> None:
    qkv = random_qkv(packed)
    layout = build_layout(packed.documents, packed.cu_seqlens, "sdpa", torch.float32)
    out = BACKENDS["sdpa"](torch.stack(qkv, 2), layout, 0.0)
    expected = attention_by_document(*qkv, packed.documents)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(out, qkv, upstream)
    theirs = torch.autograd.grad(expected, qkv, upstream.double())
    for a, b in zip(ours, theirs, strict=True):
        assert bool(torch.isfinite(a).all())
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def numbers_of_documents(cu_seqlens: Tensor) -> Tensor:
    """The number of each flattened token's document, from the cumulative lengths alone: (1, T)."""
    bounds = cu_seqlens.tolist()
    assert bounds[0] == 0
    numbers = torch.zeros(1, bounds[-1], dtype=torch.int64)
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        numbers[0, start:stop] = number
    return numbers


@pytest.mark.parametrize("backend", ["varlen", "triton"])
def test_kernel_backends_get_flattened_tokens_and_the_bounds_of_documents(
    packed: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels need a GPU; stand-ins with their signatures compute here what they promise."""

    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int
    ) -> Tensor:
        assert cu_q is cu_k
        assert max_q == max_k == 32
        return attention_by_document(q[None], k[None], v[None], numbers_of_documents(cu_q))[0].to(
            q.dtype
        )

    def flash_attention(qkv: Tensor, cu: Tensor, bounds: Any, dropout: float) -> Tensor:
        numbers = numbers_of_documents(cu)[0]
        q, k, v = qkv.unbind(1)
        assert dropout == 0.0
        assert torch.equal(bounds.low_t, cu[numbers])
        assert torch.equal(bounds.high_t, cu[numbers + 1])
        return attention_by_document(q[None], k[None], v[None], numbers[None])[0].to(q.dtype)

    if backend == "varlen":
        stand_in = types.ModuleType("varlen")
        stand_in.__dict__["varlen_attn"] = varlen_attn
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", stand_in)
    else:
        from electra_dist.model.kernels import flash_attention as module

        monkeypatch.setattr(module, "flash_attention", flash_attention)
    layout = build_layout(packed.documents, packed.cu_seqlens, backend, torch.float32)
    qkv = torch.stack(random_qkv(packed), 2)
    out = BACKENDS[backend](qkv, layout, 0.0)
    expected = BACKENDS["sdpa"](
        qkv, build_layout(packed.documents, packed.cu_seqlens, "sdpa", torch.float32), 0.0
    )
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_varlen_on_the_gpu_equals_attention_one_document_at_a_time(
    packed: Any, dtype: torch.dtype
) -> None:
    qkv = [x.detach().to("cuda", dtype).requires_grad_() for x in random_qkv(packed, size=64)]
    layout = build_layout(packed.documents.cuda(), packed.cu_seqlens.cuda(), "varlen", dtype)
    out = BACKENDS["varlen"](torch.stack(qkv, 2), layout, 0.0)
    expected = attention_by_document(*(x.cpu() for x in qkv), packed.documents)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=2e-2, atol=2e-2)
    grads = torch.autograd.grad(out, qkv, torch.ones_like(out))
    expected_grads = torch.autograd.grad(expected, qkv, torch.ones_like(expected))
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=5e-2, atol=5e-2)


def test_auto_is_sdpa_on_the_cpu_and_in_fp32() -> None:
    for device, dtype in ((CPU, torch.float32), (CPU, torch.bfloat16), (CUDA, torch.float32)):
        assert choose_backend("auto", device, dtype, 64) == "sdpa"


def test_auto_is_varlen_on_cuda_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert choose_backend("auto", "cuda", torch.bfloat16, 64) == "varlen"
    assert choose_backend("auto", "cuda", torch.float16, 128) == "varlen"


def test_deterministic_training_takes_our_kernel_and_refuses_varlen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr("electra_dist.model.attention.backends.kernels.available", lambda *_: None)
    assert choose_backend("auto", "cuda", torch.bfloat16, 64, deterministic=True) == "triton"
    assert choose_backend("auto", "cpu", torch.bfloat16, 64, deterministic=True) == "sdpa"
    with pytest.raises(
        UserError, match=r"no fixed order, and train.deterministic = true; available here: .*triton"
    ):
        choose_backend("varlen", "cuda", torch.bfloat16, 64, deterministic=True)


def test_dropout_on_cuda_takes_our_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr("electra_dist.model.attention.backends.kernels.available", lambda *_: None)
    assert choose_backend("auto", "cuda", torch.bfloat16, 64, dropout=0.1) == "triton"
    assert choose_backend("triton", "cuda", torch.bfloat16, 64, dropout=0.1) == "triton"


def test_more_documents_than_flash_attention_has_take_our_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their number is an axis of its launch; 16 rows of 32,768 tokens may have 65,552."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr("electra_dist.model.attention.backends.kernels.available", lambda *_: None)
    assert choose_backend("auto", "cuda", torch.bfloat16, 64, sequences=65_535) == "varlen"
    assert (
        choose_backend("auto", "cuda", torch.bfloat16, 64, sequences=16 * (32_768 // 8 + 1))
        == "triton"
    )
    assert (
        "attention: triton, because of varlen: it has 65,535 documents of a micro-batch at most"
        in caplog.text
    )
    with pytest.raises(
        UserError, match=r"there may be 65,552: train.micro_rows x .*; available here: .*triton"
    ):
        choose_backend("varlen", "cuda", torch.bfloat16, 64, sequences=65_552)


def test_a_slower_choice_on_cuda_is_logged_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    for dropout in (0.0, 0.1):
        assert choose_backend("auto", "cuda", torch.float16, 64, dropout=dropout) == "sdpa"
    assert (
        "sdpa with a block mask, slower, because of varlen: it needs compute capability 8.0"
        in caplog.text
    )
    assert "sdpa with a block mask, slower, because of triton: " in caplog.text


@pytest.mark.parametrize(
    ("name", "device", "dtype", "head_size", "dropout", "message"),
    [
        (
            "varlen",
            CPU,
            torch.bfloat16,
            64,
            0.0,
            "model.attention = varlen: it needs a CUDA device.*available.*sdpa",
        ),
        ("varlen", CUDA, torch.float32, 64, 0.0, "bf16 or fp16"),
        ("varlen", CUDA, torch.bfloat16, 20, 0.0, "multiple of 8"),
        ("varlen", CUDA, torch.bfloat16, 64, 0.1, "it has no dropout"),
        (
            "triton",
            CPU,
            torch.float32,
            64,
            0.0,
            "model.attention = triton: .*available here: auto, sdpa",
        ),
        ("flash", CPU, torch.float32, 64, 0.0, "expected one of auto, sdpa, varlen, triton"),
    ],
)
def test_a_backend_that_cannot_run_is_refused_with_what_can(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    head_size: int,
    dropout: float,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    with pytest.raises(UserError, match=message):
        choose_backend(name, device, dtype, head_size, dropout)


def small_encoder(make_config: Any, perturb: Any, **model: Any) -> Encoder:
    encoder = Encoder(make_config("tiny", **model).model, "generator", "sdpa")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in encoder.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.reset_parameters()
    perturb(encoder, 4)
    return encoder


def encode(encoder: Encoder, batch: Any) -> Tensor:
    embeddings = torch.randn(*batch.tokens.shape, 128, generator=torch.Generator().manual_seed(3))
    return encoder(embeddings, batch.documents, batch.cu_seqlens)


def test_a_change_in_one_document_changes_no_other(
    make_config: Any, perturb: Any, packed: Any
) -> None:
    encoder = small_encoder(make_config, perturb)
    embeddings = torch.randn(*packed.tokens.shape, 128, generator=torch.Generator().manual_seed(3))
    changed = embeddings.clone()
    second = packed.documents[0] == 1
    changed[0, second] += 1
    before, after = (encoder(x, packed.documents, packed.cu_seqlens) for x in (embeddings, changed))
    assert torch.equal(before[0, ~second], after[0, ~second])
    assert bool((before[0, second] != after[0, second]).any(-1).all())
    assert torch.equal(before[1:], after[1:])


@pytest.mark.parametrize(("dropout", "compiled"), [(0.0, False), (0.2, False), (0.2, True)])
def test_activation_checkpointing_changes_nothing(
    make_config: Any, perturb: Any, packed: Any, dropout: float, compiled: bool
) -> None:
    encoder = small_encoder(make_config, perturb, dropout=dropout, attention_dropout=dropout)
    if compiled:
        compile_network(encoder)
    results = []
    for checkpointing in (False, True):
        encoder.activation_checkpointing = checkpointing
        encoder.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            out = encode(encoder, packed)
            out.square().sum().backward()
        results.append([out.detach(), *(p.grad.clone() for p in encoder.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_dropout_acts_in_training_only(make_config: Any, perturb: Any, packed: Any) -> None:
    encoder = small_encoder(make_config, perturb, dropout=0.1)
    exact = small_encoder(make_config, perturb)
    assert not torch.equal(encode(encoder, packed), encode(encoder, packed))
    assert torch.equal(encode(encoder.eval(), packed), encode(exact, packed))
    encoder = small_encoder(make_config, perturb, attention_dropout=0.1)
    assert not torch.equal(encode(encoder, packed), encode(encoder, packed))
    assert torch.equal(encode(encoder.eval(), packed), encode(exact, packed))


def test_a_layer_compiles_as_one_graph_once(
    make_config: Any, perturb: Any, packed: Any, make_documents: Any
) -> None:
    encoder = small_encoder(make_config, perturb)
    expected = encode(encoder, packed)
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    for layer in encoder.layers:
        layer.forward = torch.compile(layer.forward, fullgraph=True, backend=count, dynamic=False)
    torch.testing.assert_close(encode(encoder, packed), expected)
    first = len(graphs)
    others = [make_documents([n, 32 - n]) for n in (5, 9, 30)]
    encode(encoder, to_device(rows_of_documents(others, 32, SPECIAL_TOKENS.pad), "cpu"))
    assert first <= len(encoder.layers)
    assert len(graphs) == first


@torch.library.custom_op("electra_dist_tests::by_sequence", mutates_args=())
def by_sequence(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    """In the place of variable-length attention, which a CPU has not:
    the mean of every sequence.
    """
    return torch.cat(
        [part.mean(0, keepdim=True).expand_as(part) for part in x.split(cu_seqlens.diff().tolist())]
    )


@by_sequence.register_fake
def _(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_another_number_of_sequences_compiles_nothing_again(
    make_config: Any, perturb: Any, make_documents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attend(qkv: Tensor, layout: Layout, probability: float) -> Tensor:
        values = qkv[:, :, 2]
        return by_sequence(values.flatten(0, 1), layout.cu_seqlens).view_as(values)

    monkeypatch.setitem(BACKENDS, "varlen", attend)
    encoder = Encoder(make_config("tiny").model, "generator", "varlen")
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    for layer in encoder.layers:
        layer.forward = torch.compile(layer.forward, fullgraph=True, backend=count)
    with torch.no_grad():
        for rows in ([[5, 27]], [[3, 9, 20]], [[2] * 16]):
            batch = to_device(
                rows_of_documents([make_documents(row) for row in rows], 32, SPECIAL_TOKENS.pad),
                "cpu",
            )
            encode(encoder, batch)
    assert len(graphs) == 1  # every layer is the same code


def test_only_sdpa_holds_a_quadratic_mask(packed: Any) -> None:
    layouts = {
        name: build_layout(packed.documents, packed.cu_seqlens, name, torch.float32)
        for name in ("varlen", "sdpa")
    }
    assert layouts["varlen"] == Layout(packed.documents, packed.cu_seqlens)
    assert layouts["sdpa"].mask is not None
    assert layouts["sdpa"].mask.shape == (3, 1, 32, 32)
