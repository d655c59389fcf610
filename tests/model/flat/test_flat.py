"""A network with flat parameters is the network that it was,
and keeps no gathered weights that it could do without.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from electra_dist.config import layers_of_groups
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.flat import network as flat_network
from electra_dist.model.flat.slots import named_slices
from electra_dist.model.generator import Generator
from electra_dist.model.inputs import ModelBatch
from electra_dist.model.networks import build_networks

VOCABULARY = 1009


def losses(generator: Generator, discriminator: Discriminator, batch: ModelBatch) -> Tensor:
    """The sum of both, so that every parameter has a gradient;
    the same samples and dropout masks in every call.
    """
    torch.manual_seed(3)
    generated = generator(batch)
    judged = discriminator(generated.shared, batch, generated.corrupted, generated.replaced)
    total: Tensor = generated.loss_sum + judged.loss_sum
    return total


def by_name(network: Any, of: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    """What `of` gives for each parameter, cut into the original ones."""
    found = {}
    for piece in named_slices(network):
        part = of(piece.held).flatten()[piece.start : piece.start + math.prod(piece.shape)]
        found[piece.name] = part.view(piece.shape).clone()
    return found


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
def test_losses_gradients_and_names_are_those_of_the_plain_networks(
    monkeypatch: pytest.MonkeyPatch,
    make_config: Any,
    make_batch: Any,
    perturb: Any,
    sharing: str,
    recomputed: bool,
) -> None:
    monkeypatch.setattr(
        flat_network, "layers_of_groups", lambda layers, _: [2] * (layers // 2) + [1] * (layers % 2)
    )
    config = make_config(
        "tiny",
        embedding_sharing=sharing,
        dropout=0.1,
        generator={"layers": 2},
        discriminator={"layers": 3},
    )
    batch = make_batch()
    found = []
    for flat in (False, True):
        networks = build_networks(config, VOCABULARY, "cpu", seed=5)
        for network in networks:
            perturb(network, 1)
            network.encoder.activation_checkpointing = recomputed
            if flat:
                network.flatten(partitioned=True)
                assert len(list(network.parameters())) <= 5
        total = losses(*networks, batch)
        total.backward()
        values = [by_name(network, lambda p: p.detach()) for network in networks]
        gradients = [by_name(network, lambda p: p.grad) for network in networks]
        found.append((total.detach(), values, gradients))
    (plain, plain_values, plain_gradients), (flat_total, flat_values, flat_gradients) = found
    assert torch.equal(plain, flat_total)
    for wanted, got in zip(
        plain_values + plain_gradients, flat_values + flat_gradients, strict=True
    ):
        assert wanted.keys() == got.keys()
        for name in wanted:
            torch.testing.assert_close(got[name], wanted[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_gathered_weights_can_go_between_forward_and_backward(
    make_config: Any, make_batch: Any, compiled: bool
) -> None:
    """As under ZeRO-3: the memory of a group is let go after its forward,
    and other memory holds it in its backward.
    """
    _, discriminator = build_networks(make_config("tiny"), VOCABULARY, "cpu", seed=5)
    shared = torch.randn(*make_batch().tokens.shape, 128)
    if compiled:
        for layer in discriminator.encoder.layers:
            layer.forward = torch.compile(layer.forward, backend="aot_eager", fullgraph=True)
    discriminator.flatten(partitioned=True)
    batch = make_batch()
    groups = list(discriminator.encoder.groups)

    def loss() -> Tensor:
        out: Tensor = discriminator(
            shared.requires_grad_(), batch, batch.tokens, torch.zeros(batch.tokens.shape)
        )[0]
        return out

    loss().backward()
    wanted = [group.matrices.grad.clone() for group in groups]
    discriminator.zero_grad()

    total = loss()
    for group in groups:
        whole, memory = (
            group.matrices.data.clone(),
            StorageWeakRef(group.matrices.untyped_storage()),
        )
        group.matrices.data = torch.empty(0)
        assert memory.expired()
        group.matrices.data = whole
    total.backward()
    for group, gradient in zip(groups, wanted, strict=True):
        torch.testing.assert_close(group.matrices.grad, gradient)


def test_groups_hold_as_many_layers_as_fit() -> None:
    assert layers_of_groups(12, 7_077_888) == [4, 4, 4]  # base
    assert layers_of_groups(24, 12_582_912) == [2] * 12  # large
    assert layers_of_groups(5, 2**24) == [2, 2, 1]
    assert layers_of_groups(3, 2**26) == [1, 1, 1]
