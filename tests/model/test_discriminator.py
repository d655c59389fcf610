"""The discriminator against plain formulas: its loss, its embeddings, its head."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from electra_dist.batch import PADDING_DOCUMENT, SPECIAL_TOKENS
from electra_dist.model.networks import build_networks

VOCABULARY = 1009


def run(networks: Any, batch: Any) -> tuple[Any, Any]:
    generator, discriminator = networks
    out = generator(batch)
    return out, discriminator(out.shared, batch, out.corrupted, out.replaced)


@pytest.fixture
def build(make_config: Any, perturb: Any) -> Any:
    def make(noise: bool = True, **model: Any) -> Any:
        networks = build_networks(make_config("tiny", **model), VOCABULARY, "cpu", seed=1)
        if noise:
            perturb(networks[0], 1)
            perturb(networks[1], 2)
        return networks

    return make


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_loss_is_binary_cross_entropy_over_all_real_tokens_and_no_padding(
    build: Any, make_batch: Any, sharing: str
) -> None:
    batch = make_batch(rows=((20, 5), (32,)))
    out, d_out = run(build(embedding_sharing=sharing), batch)
    expected, counted = 0.0, []
    for b in range(2):
        for i in range(32):
            if batch.documents[b, i] != PADDING_DOCUMENT:
                probability = torch.sigmoid(d_out.logits[b, i].double())
                label = float(out.corrupted[b, i] != batch.tokens[b, i])
                expected -= float(label * probability.log() + (1 - label) * (1 - probability).log())
                counted.append(int(batch.tokens[b, i]))
    assert len(counted) == 57
    assert {SPECIAL_TOKENS.cls, SPECIAL_TOKENS.sep} <= set(counted)
    assert float(out.replaced.sum()) >= 5
    assert float(d_out.loss_sum.detach()) == pytest.approx(expected, rel=1e-5)
    assert d_out.loss_sum.dtype == d_out.logits.dtype == torch.float32


def test_cls_and_sep_logits_get_gradient_and_padding_gets_none(build: Any, make_batch: Any) -> None:
    batch = make_batch(rows=((20, 5), (32,)))
    generator, discriminator = build()
    out = generator(batch)
    seen = []
    discriminator.head.register_forward_hook(
        lambda _, __, logits: (logits.retain_grad(), seen.append(logits))[0]
    )
    discriminator(out.shared, batch, out.corrupted, out.replaced).loss_sum.backward()
    real = batch.documents != PADDING_DOCUMENT
    assert bool((seen[0].grad[real] != 0).all())
    assert bool((seen[0].grad[~real] == 0).all())


def test_padding_content_does_not_reach_the_loss(build: Any, make_batch: Any) -> None:
    batch = make_batch(rows=((20, 5), (32,)))
    networks = build(embedding_sharing="none")
    padding = batch.documents == PADDING_DOCUMENT
    other = batch._replace(
        tokens=batch.tokens.masked_fill(padding, 17),
        inputs=batch.inputs.masked_fill(padding, 18),
    )
    (out, d_out), (other_out, other_d) = run(networks, batch), run(networks, other)
    assert torch.equal(out.loss_sum, other_out.loss_sum)
    torch.testing.assert_close(d_out.loss_sum, other_d.loss_sum, rtol=1e-6, atol=0)


def test_the_head_is_linear_gelu_linear(build: Any, make_batch: Any) -> None:
    batch = make_batch()
    generator, discriminator = build()
    out = generator(batch)
    x = discriminator.encode(out.shared, out.corrupted, batch).double()
    head = discriminator.head
    x = x @ head.dense.weight.double().T + head.dense.bias.double()
    x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    expected = x @ head.prediction.weight.double()[0] + head.prediction.bias.double()
    logits = discriminator(out.shared, batch, out.corrupted, out.replaced).logits
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)


def test_deltas_start_at_zero_so_that_disentangled_starts_as_shared(
    build: Any, make_batch: Any
) -> None:
    batch = make_batch()
    shared, disentangled = (
        build(noise=False, embedding_sharing=s) for s in ("shared", "disentangled")
    )
    deltas = disentangled[1].deltas
    assert all(not t.weight.any() for t in (deltas.word, deltas.position, deltas.token_type))
    disentangled[1].load_state_dict(shared[1].state_dict(), strict=False)
    for a, b in zip(run(shared, batch), run(disentangled, batch), strict=True):
        torch.testing.assert_close(a.loss_sum, b.loss_sum)


def test_disentangled_is_the_norm_of_generator_sum_plus_deltas(build: Any, make_batch: Any) -> None:
    batch = make_batch()
    generator, discriminator = build(embedding_sharing="disentangled")
    tables = [
        getattr(generator.embeddings, name).weight.double()
        + getattr(discriminator.deltas, name).weight.double()
        for name in ("word", "position", "token_type")
    ]
    x = tables[0][batch.tokens] + tables[1][batch.positions] + tables[2][0]
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()
    expected = x * discriminator.deltas.norm.weight + discriminator.deltas.norm.bias
    shared = generator.exchange(batch.tokens, batch.positions)
    embedded = discriminator.embed(shared, batch.tokens, batch.positions)
    torch.testing.assert_close(embedded.double(), expected, rtol=1e-4, atol=1e-5)
    run((generator, discriminator), batch)[1].loss_sum.backward()
    assert bool(discriminator.deltas.word.weight.grad.any())


def test_each_network_has_its_own_projection_and_the_embedding_size_is_common(build: Any) -> None:
    generator, discriminator = build(embedding_size=96)
    assert generator.encoder.project.weight.shape == (64, 96)
    assert discriminator.encoder.project.weight.shape == (128, 96)
    generator, discriminator = build()  # 128 is the discriminator's hidden size
    assert generator.encoder.project is not None
    assert discriminator.encoder.project is None


def test_missing_shared_embeddings_are_an_error(build: Any, make_batch: Any) -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match="shared needs the generator's embeddings"):
        build()[1](None, batch, batch.tokens, torch.zeros(batch.tokens.shape))
