"""The generator against plain formulas: what it predicts, replaces, labels and shares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.model import head
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.networks import build_networks

VOCABULARY = 1009


@pytest.fixture
def build(make_config: Any, perturb: Any) -> Any:
    def make(**model: Any) -> tuple[Generator, Discriminator]:
        networks = build_networks(make_config("tiny", **model), VOCABULARY, "cpu", seed=1)
        perturb(networks[0], 1)
        perturb(networks[1], 2)
        return networks

    return make


@pytest.fixture
def generator(build: Any) -> Generator:
    return build()[0]


def used_slots(batch: Any) -> list[tuple[int, int, int]]:
    """(row, position, slot) of every used slot."""
    found = (batch.masked_weights > 0).nonzero().tolist()
    return [(b, int(batch.masked_positions[b, p]), p) for b, p in found]


def test_loss_and_accuracy_are_those_of_cross_entropy_at_the_masked_positions(
    generator: Generator, make_batch: Any
) -> None:
    batch = make_batch()
    out = generator(batch)
    logits = generator.logits(batch).double()
    loss, correct = torch.zeros((), dtype=torch.float64), 0
    for b, position, _ in used_slots(batch):
        original = batch.tokens[b, position]
        loss = loss - torch.log_softmax(logits[b, position], 0)[original]
        correct += int(logits[b, position].argmax() == original)
    torch.testing.assert_close(out.loss_sum.double(), loss, rtol=1e-5, atol=0)
    assert out.loss_sum.dtype == out.correct.dtype == torch.float32
    assert int(out.correct) == correct


def test_accuracy_counts_hits(generator: Generator, make_batch: Any) -> None:
    batch = make_batch()
    favourite = used_slots(batch)[0]
    target = int(batch.tokens[favourite[0], favourite[1]])
    bias = torch.zeros(VOCABULARY)
    bias[target] = 1e4
    generator.init_output_bias(bias)
    expected = sum(int(batch.tokens[b, position]) == target for b, position, _ in used_slots(batch))
    assert int(generator(batch).correct) == expected >= 1


def test_all_selected_positions_are_resampled_also_those_shown_unchanged(
    generator: Generator, make_batch: Any
) -> None:
    batch = make_batch()
    forced = torch.arange(700, 700 + batch.masked_positions.numel()).view_as(batch.masked_positions)
    out = generator(batch, forced_samples=forced)
    expected = batch.tokens.clone()
    for b, position, slot in used_slots(batch):
        expected[b, position] = forced[b, slot]
    shown_unchanged = [
        (b, i) for b, i, _ in used_slots(batch) if batch.inputs[b, i] == batch.tokens[b, i]
    ]
    assert shown_unchanged, "the batch must hold a masked position that is not shown as [MASK]"
    assert torch.equal(out.corrupted, expected)
    assert not (out.corrupted == SPECIAL_TOKENS.mask).any()


def test_a_sample_that_equals_the_original_counts_as_original(
    generator: Generator, make_batch: Any
) -> None:
    batch = make_batch()
    slots = used_slots(batch)
    forced = torch.full_like(batch.masked_positions, 777)
    b, position, slot = slots[0]
    forced[b, slot] = batch.tokens[b, position]
    out = generator(batch, forced_samples=forced)
    expected = torch.zeros(batch.tokens.shape)
    for b, position, _ in slots[1:]:
        expected[b, position] = float(batch.tokens[b, position] != 777)
    assert out.replaced.dtype == torch.float32
    assert torch.equal(out.replaced, expected)


@pytest.mark.parametrize(
    "masked_first", [False, True], ids=["position 0 unmasked", "position 0 masked"]
)
def test_unused_slots_touch_nothing(
    generator: Generator, make_batch: Any, masked_first: bool
) -> None:
    batch = make_batch()
    if masked_first:  # a used slot at position 0, beside unused slots that also say 0
        batch.masked_positions[:, 0] = 0
        batch.masked_targets[:, 0] = batch.tokens[:, 0]
    cut = batch._replace(
        **{
            name: getattr(batch, name)[:, :-1]
            for name in batch._fields
            if name.startswith("masked_")
        },
    )
    forced = torch.full_like(batch.masked_positions, 777)
    forced[:, -1] = 888
    outputs, gradients = [], []
    for given, samples in ((batch, forced), (cut, forced[:, :-1])):
        generator.zero_grad()
        out = generator(given, forced_samples=samples)
        out.loss_sum.backward()
        outputs.append(out)
        gradients.append([p.grad.clone() for p in generator.parameters() if p.grad is not None])
    torch.testing.assert_close(outputs[0].loss_sum, outputs[1].loss_sum, rtol=1e-6, atol=0)
    assert torch.equal(outputs[0].correct, outputs[1].correct)
    assert torch.equal(outputs[0].corrupted, outputs[1].corrupted)
    assert not (outputs[0].corrupted == 888).any()
    assert bool((outputs[0].corrupted[:, 0] == 777).all()) == masked_first
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_replacements_are_drawn_from_the_softmax_by_key_and_not_its_maximum(
    generator: Generator, make_batch: Any
) -> None:
    batch = make_batch()
    bias = torch.full((VOCABULARY,), -1e4)
    bias[500], bias[600] = 1.0, 0.0  # two candidates, odds about e to 1
    generator.init_output_bias(bias)
    with torch.no_grad():
        # so that the bias decides
        generator.embeddings.word.weight[600] = generator.embeddings.word.weight[500]
        drawn = []
        for trial in range(60):
            keys = batch.masked_keys * (2 * trial + 1) + trial
            out = generator(batch._replace(masked_keys=keys))
            again = generator(batch._replace(masked_keys=keys))
            assert torch.equal(out.corrupted, again.corrupted)
            drawn += [int(out.corrupted[b, position]) for b, position, _ in used_slots(batch)]
    assert set(drawn) == {500, 600}
    share = drawn.count(500) / len(drawn)  # 600 draws: five standard deviations are 0.091
    assert abs(share - 0.731) < 0.091


def test_temperature_changes_the_samples_and_not_the_loss(build: Any, make_batch: Any) -> None:
    batch = make_batch()
    outputs = []
    for temperature in (1.0, 1e-4):
        generator = build(temperature=temperature)[0]
        outputs.append((generator(batch), generator.logits(batch)))
    assert torch.equal(outputs[0][0].loss_sum, outputs[1][0].loss_sum)
    cold, logits = outputs[1]
    for b, position, _ in used_slots(batch):
        assert int(cold.corrupted[b, position]) == int(logits[b, position].argmax())
    assert not torch.equal(outputs[0][0].corrupted, cold.corrupted)


def test_no_gradient_flows_through_the_samples(build: Any, make_batch: Any) -> None:
    batch = make_batch()
    generator, discriminator = build(embedding_sharing="none")
    out = generator(batch)
    assert not out.corrupted.requires_grad
    assert not out.replaced.requires_grad
    discriminator(out.shared, batch, out.corrupted, out.replaced).loss_sum.backward()
    assert all(p.grad is None for p in generator.parameters())


def test_shared_embeddings_get_gradient_from_both_networks(build: Any, make_batch: Any) -> None:
    batch = make_batch()
    generator, discriminator = build(embedding_sharing="shared")
    forced = torch.full_like(batch.masked_positions, 777)
    assert not (batch.inputs == 777).any()
    out = generator(batch, forced_samples=forced)
    expected = generator.embeddings(out.corrupted, batch.positions)
    torch.testing.assert_close(out.shared, expected)
    discriminator(out.shared, batch, out.corrupted, out.replaced).loss_sum.backward()
    names = {
        name
        for name, p in generator.named_parameters()
        if p.grad is not None and bool(p.grad.abs().sum() > 0)
    }
    tables = {f"embeddings.{x}.weight" for x in ("word", "position", "token_type", "norm")}
    assert names == tables | {"embeddings.norm.bias"}
    assert bool(generator.embeddings.word.weight.grad[777].abs().sum() > 0)


def test_disentangled_shares_the_sum_before_the_norm_without_gradient(
    build: Any, make_batch: Any
) -> None:
    batch = make_batch()
    generator, discriminator = build(embedding_sharing="disentangled")
    out = generator(batch)
    tables = generator.embeddings
    expected = (
        tables.word.weight[out.corrupted]
        + tables.position.weight[batch.positions]
        + tables.token_type.weight[0]
    )
    assert not out.shared.requires_grad
    torch.testing.assert_close(out.shared, expected.detach())
    discriminator(out.shared, batch, out.corrupted, out.replaced).loss_sum.backward()
    assert all(p.grad is None for p in generator.parameters())


def test_the_output_matrix_is_the_word_embedding(generator: Generator, make_batch: Any) -> None:
    batch = make_batch()
    generator(batch).loss_sum.backward()
    unseen = next(i for i in range(5, VOCABULARY) if not bool((batch.inputs == i).any()))
    assert bool(generator.embeddings.word.weight.grad[unseen].abs().sum() > 0)
    shapes = [tuple(p.shape) for p in generator.parameters()]
    assert shapes.count((VOCABULARY, generator.config.embedding_size)) == 1


def test_the_head_is_linear_gelu_norm_then_embedding_and_bias(
    generator: Generator, make_batch: Any
) -> None:
    batch = make_batch()
    hidden = generator.encode(batch.inputs, batch).double()
    head = generator.head
    x = hidden @ head.dense.weight.double().T + head.dense.bias.double()
    x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()
    x = x * head.norm.weight.double() + head.norm.bias.double()
    expected = x @ generator.embeddings.word.weight.double().T + generator.output_bias.double()
    torch.testing.assert_close(generator.logits(batch).double(), expected, rtol=1e-4, atol=1e-5)


def test_output_bias_starts_at_the_log_frequencies(generator: Generator) -> None:
    frequencies = torch.rand(VOCABULARY) + 0.1
    generator.init_output_bias((frequencies / frequencies.sum()).log().numpy())
    torch.testing.assert_close(F.softmax(generator.output_bias, 0), frequencies / frequencies.sum())
    with pytest.raises(ValueError, match="finite"):
        generator.init_output_bias(torch.full((VOCABULARY,), float("-inf")))
    with pytest.raises(ValueError, match="1009"):
        generator.init_output_bias(torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_give_fp32_losses_without_nan(
    build: Any, make_batch: Any, dtype: torch.dtype
) -> None:
    batch = make_batch()
    exact_g, exact_d = build()
    exact = exact_g(batch, forced_samples=torch.full_like(batch.masked_positions, 777))
    generator, discriminator = (network.to(dtype) for network in build())
    out = generator(batch, forced_samples=torch.full_like(batch.masked_positions, 777))
    d_out = discriminator(out.shared.float(), batch, out.corrupted, out.replaced)
    d_exact = exact_d(exact.shared, batch, exact.corrupted, exact.replaced)
    for value in (out.loss_sum, out.correct, out.replaced, d_out.loss_sum, d_out.logits):
        assert value.dtype == torch.float32
    torch.testing.assert_close(out.loss_sum, exact.loss_sum, rtol=2e-2, atol=0)
    torch.testing.assert_close(d_out.loss_sum, d_exact.loss_sum, rtol=2e-2, atol=0)
    (out.loss_sum + d_out.loss_sum).backward()
    grads = [
        p.grad
        for network in (generator, discriminator)
        for p in network.parameters()
        if p.grad is not None
    ]
    assert grads
    assert all(bool(torch.isfinite(g).all()) for g in grads)


def test_a_forward_never_waits_for_the_device_and_all_shapes_are_static(
    make_config: Any, make_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU. Under fake tensors anything that reads a value (item, nonzero, boolean indexing)
    raises.
    """
    monkeypatch.setattr(head, "may_wait", lambda device: False)
    batch = make_batch()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        config = make_config("tiny").model
        generator, discriminator = (
            Generator(config, VOCABULARY, "sdpa"),
            Discriminator(config, VOCABULARY, "sdpa"),
        )
        fake = type(batch)(*(mode.from_tensor(x) for x in batch))
        out = generator(fake)
        d_out = discriminator(out.shared, fake, out.corrupted, out.replaced)
        (out.loss_sum + d_out.loss_sum).backward()
    shapes: list[Any] = [x.shape for x in (out.corrupted, out.replaced, d_out.logits)]
    assert shapes == [batch.tokens.shape] * 3
    assert isinstance(out.shared, Tensor)
