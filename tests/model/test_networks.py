"""Both networks as built: sizes as published, first values as in the original,
the same bits from the same seed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from electra_dist.batch import SPECIAL_TOKENS, MicroBatch
from electra_dist.errors import UserError
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.inputs import ModelBatch, rows_of_documents, to_device
from electra_dist.model.networks import build_networks
from electra_dist.model.parameters import no_decay

VOCABULARY = 1009


def count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


@pytest.mark.parametrize(
    ("preset", "backbone", "both"),
    [("small", 13.5, 14.2), ("base", 108.9, 119.4), ("large", 334.1, 354.7)],
)
def test_parameter_counts_are_the_published_ones(
    make_config: Any, preset: str, backbone: float, both: float
) -> None:
    config = make_config(preset).model
    with torch.device("meta"):
        generator, discriminator = (
            Generator(config, 30522, "sdpa"),
            Discriminator(config, 30522, "sdpa"),
        )
    embeddings = count(generator.embeddings.parameters())
    assert (embeddings + count(discriminator.encoder.parameters())) / 1e6 == pytest.approx(
        backbone, abs=0.06
    )
    total = count(generator.parameters()) + count(discriminator.parameters())
    # the published figure leaves out some heads
    assert total / 1e6 == pytest.approx(both, rel=0.01)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_random_state(
    make_config: Any,
) -> None:
    config = make_config("tiny")
    state = torch.get_rng_state()
    first = build_networks(config, VOCABULARY, "cpu", seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second, other = (build_networks(config, VOCABULARY, "cpu", seed=seed) for seed in (5, 6))
    for a, b, c in zip(first, second, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
        assert not torch.equal(a.encoder.layers[0].ffn_in.weight, c.encoder.layers[0].ffn_in.weight)
    same_size = make_config("tiny", generator=config.model.discriminator.model_dump())
    twins = build_networks(same_size, VOCABULARY, "cpu", seed=5)
    assert not torch.equal(
        twins[0].encoder.layers[0].ffn_in.weight, twins[1].encoder.layers[0].ffn_in.weight
    )


def test_one_network_does_not_depend_on_the_size_of_the_other(make_config: Any) -> None:
    small = build_networks(make_config("tiny"), VOCABULARY, "cpu", seed=5)
    wide = build_networks(
        make_config(
            "tiny", generator={"layers": 1, "hidden_size": 128, "heads": 2, "ffn_size": 64}
        ),
        VOCABULARY,
        "cpu",
        seed=5,
    )
    for a, b in zip(small[1].parameters(), wide[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_first_values_are_those_of_the_original(make_config: Any, sharing: str) -> None:
    for network in build_networks(
        make_config("tiny", embedding_sharing=sharing), VOCABULARY, "cpu", seed=5
    ):
        glorot = {"encoder.project", "head.prediction"}
        deltas = {"deltas.word", "deltas.position", "deltas.token_type"}
        network.requires_grad_(False)
        for name, module in network.named_modules():
            if isinstance(module, nn.LayerNorm):
                assert bool((module.weight == 1).all())
                assert module.eps == 1e-12
            if isinstance(module, nn.LayerNorm | nn.Linear):
                assert not module.bias.any()
            if name in deltas:
                assert not module.weight.any()
            elif name in glorot:
                limit = (6 / sum(module.weight.shape)) ** 0.5
                assert 0.9 * limit < float(module.weight.abs().max()) <= limit
            elif isinstance(module, nn.Linear | nn.Embedding):
                assert float(module.weight.abs().max()) <= 0.04
                # a normal cut at two standard deviations has 0.8796 of its spread
                if module.weight.numel() > 1000:
                    assert float(module.weight.std()) == pytest.approx(0.02 * 0.8796, rel=0.05)
        if isinstance(network, Generator):
            assert not network.output_bias.any()
            assert bool(network.embeddings.word.weight[SPECIAL_TOKENS.pad].any())


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_biases_and_layer_norms_are_not_decayed_and_everything_else_is(
    make_config: Any, sharing: str
) -> None:
    for network in build_networks(
        make_config("tiny", embedding_sharing=sharing), VOCABULARY, "cpu", seed=5
    ):
        norms = {
            id(p) for m in network.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()
        }
        for name, parameter in network.named_parameters():
            assert no_decay(name) == (id(parameter) in norms or parameter.ndim == 1), name
        decayed = {name for name, _ in network.named_parameters() if not no_decay(name)}
        if isinstance(network, Generator):
            assert {
                "embeddings.word.weight",
                "embeddings.position.weight",
                "embeddings.token_type.weight",
            } <= decayed
            assert "output_bias" not in decayed


def test_no_parameter_is_unused(make_config: Any, make_batch: Any) -> None:
    batch = make_batch()
    for sharing in ("shared", "disentangled", "none"):
        generator, discriminator = build_networks(
            make_config("tiny", embedding_sharing=sharing), VOCABULARY, "cpu", seed=5
        )
        out = generator(batch)
        (
            out.loss_sum + discriminator(out.shared, batch, out.corrupted, out.replaced).loss_sum
        ).backward()
        for network in (generator, discriminator):
            assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_a_backend_that_cannot_run_here_is_refused_before_anything_is_built(
    make_config: Any,
) -> None:
    with pytest.raises(UserError, match="varlen"):
        build_networks(make_config("tiny", attention="varlen"), VOCABULARY, "cpu", seed=5)


def test_activation_checkpointing_reaches_both_encoders(make_config: Any) -> None:
    config = make_config("tiny")
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"activation_checkpointing": True})}
    )
    assert all(
        n.encoder.activation_checkpointing
        for n in build_networks(config, VOCABULARY, "cpu", seed=5)
    )


def test_to_device_keeps_every_value_and_the_bits_of_the_keys() -> None:
    packed = rows_of_documents([[[2, 9, 3], [2, 3]], [[2, 7, 8, 3]]], 6, SPECIAL_TOKENS.pad)
    keys = np.array([[2**64 - 1], [5]], np.uint64)
    batch = MicroBatch(**{**packed.__dict__, "masked_keys": keys})
    tensors = to_device(batch, "cpu")
    assert ModelBatch._fields == tuple(MicroBatch.__dataclass_fields__)
    for name in (
        "tokens",
        "inputs",
        "positions",
        "masked_positions",
        "masked_targets",
        "masked_keys",
    ):
        assert getattr(tensors, name).dtype == torch.int64
    assert tensors.masked_weights.dtype == torch.float32
    assert tensors.cu_seqlens.dtype == torch.int32
    assert tensors.masked_keys.tolist() == [[-1], [5]]
    assert tensors.tokens.tolist() == [[2, 9, 3, 2, 3, 0], [2, 7, 8, 3, 0, 0]]
    assert tensors.positions.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 0]]
    assert tensors.documents.tolist() == [[0, 0, 0, 1, 1, -1], [0, 0, 0, 0, -1, -1]]
    assert tensors.cu_seqlens.tolist() == [0, 3, 5, 6, 10, 12]
    assert Counter(tensors.masked_weights.flatten().tolist()) == {0.0: 2}


def test_documents_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="row 0: 7 tokens"):
        rows_of_documents([[[1] * 4, [1] * 3]], 6, SPECIAL_TOKENS.pad)
