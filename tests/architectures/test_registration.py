"""An architecture is one registration: with it alone, the configuration, the networks, a training
step, `plan` and the names of `transformers` follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import transformers

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.architectures import find_architecture
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import NETWORKS, Config
from electra_dist.errors import ConfigError
from electra_dist.model.inputs import rows_of_documents, to_device
from electra_dist.model.networks import build_networks
from electra_dist.plan.activations import layer_saved, micro_batch_sizes, total
from electra_dist.runs.opening.changes import changes
from electra_dist.train.step import train_step
from electra_dist.zero.compilation import compile_network
from tests.support import toy_architecture
from tests.support.plain import PlainTrainer
from tests.support.processes import run_ranks
from tests.support.small import (
    SEED,
    VOCABULARY,
    full_parameters,
    make_config,
    make_engines,
    make_micro_batch,
    make_step,
)

THE_TOY = "model.architecture=toy"


@pytest.fixture
def toy() -> Iterator[None]:
    """The toy architecture is registered, and is not afterwards."""
    with toy_architecture.registered():
        yield


def test_the_configuration_takes_registered_names_only(toy: None) -> None:
    assert make_config().model.architecture == "electra"
    assert make_config(THE_TOY).model.architecture == "toy"
    with pytest.raises(
        ConfigError, match=r"model\.architecture = 'electro': .*'electra' or 'toy'.*electra"
    ):
        make_config("model.architecture=electro")


def test_after_its_registration_the_toy_is_unknown() -> None:
    with toy_architecture.registered():
        make_config(THE_TOY)
    with pytest.raises(ConfigError, match=r"model\.architecture = 'toy': .*'electra'"):
        make_config(THE_TOY)


def test_a_run_from_before_the_key_is_one_of_electra() -> None:
    config = make_config()
    written = config.model_dump(mode="json")
    del written["model"]["architecture"]
    loaded = configuration.build(written)
    assert loaded == config
    assert changes(loaded, config, "past") == []
    with toy_architecture.registered():
        found = changes(loaded, make_config(THE_TOY), "past")
    assert [change.key for change in found] == ["model.architecture"]


def logits_of_transformers(config: Config, network: Any, batch: Any) -> tuple[Any, Any]:
    """Ours and theirs on whole rows of one document."""
    names = find_architecture(config.model.architecture).names()
    generator, discriminator = build_networks(config, VOCABULARY, "cpu", SEED)
    settings = transformers.ElectraConfig(
        **names.hf_config(config.model, VOCABULARY, network, SPECIAL_TOKENS)
    )
    ours = generator.state_dict()
    if network == "generator":
        model = transformers.ElectraForMaskedLM(settings).eval()
        state = names.generator_to_huggingface(ours)
        found = generator.eval().logits(batch)
    else:
        model = transformers.ElectraForPreTraining(settings).eval()
        sharing = config.model.embedding_sharing
        state = names.discriminator_to_huggingface(discriminator.state_dict(), ours, sharing)
        shared = generator.exchange(batch.tokens, batch.positions)
        found = discriminator.eval()(shared, batch, batch.tokens, torch.zeros(batch.tokens.shape))
        found = found.logits
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    model.tie_weights()
    return found, model(input_ids=batch.tokens).logits


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_its_layers_and_its_names_are_those_of_transformers(toy: None, network: str) -> None:
    documents = [[[2, *range(10 + row, 22 + row), 3]] for row in range(3)]
    batch = to_device(rows_of_documents(documents, 14, SPECIAL_TOKENS.pad), "cpu")
    config = make_config(THE_TOY)
    ours, theirs = logits_of_transformers(config, network, batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    as_electra, _ = logits_of_transformers(make_config(), network, batch)
    assert not torch.allclose(as_electra, theirs, atol=1e-4)


def test_plan_asks_its_costs(toy: None) -> None:
    config = make_config(THE_TOY)
    electra = make_config()
    for network in NETWORKS:
        around = plan.Surroundings("cuda", "sdpa")
        spared = total(layer_saved(electra, network, around))
        spared -= total(layer_saved(config, network, around))
        tokens = micro_batch_sizes(config).tokens
        assert spared == tokens * config.network(network).ffn_size * 4
    planned = [plan.plan_memory(one, VOCABULARY, device="cpu") for one in (electra, config)]
    assert planned[0].activations > planned[1].activations
    assert planned[0].weights == planned[1].weights


def one_step(world: Any) -> dict[str, float]:
    """The largest difference to plain PyTorch after a step, and to the step of ELECTRA."""
    with toy_architecture.registered():
        config = make_config(THE_TOY)
        engines = make_engines(config, world)
        step, samples = make_step(config, 0, world.rank, world.world_size)
        train_step(engines, step, config, 1.0, samples)
        trained = full_parameters(engines)
        found = {}
        for name, reference in (("toy", config), ("electra", make_config())):
            plain = PlainTrainer(reference, SEED)
            plain.train(list(range(config.train.global_rows)))
            differences = [
                float((trained[key] - weight).abs().max()) for key, weight in plain.weights.items()
            ]
            assert trained.keys() == plain.weights.keys()
            found[name] = max(differences)
        return found


def test_a_training_step_is_that_of_plain_pytorch() -> None:
    for found in run_ranks(one_step, 2):
        assert found["toy"] < 1e-5
        assert found["electra"] > 1e-4


def test_its_layers_compile_without_a_break(toy: None) -> None:
    torch._dynamo.reset()
    arrays, samples = make_micro_batch([0, 1])
    batch = to_device(arrays, "cpu")
    compiler = torch.compile

    def traced(function: Any, **_: Any) -> Any:
        return compiler(function, backend="eager", fullgraph=True)

    losses = []
    for compiled in (False, True):
        generator, discriminator = build_networks(make_config(THE_TOY), VOCABULARY, "cpu", SEED)
        if compiled:
            with mock.patch.object(torch, "compile", traced):
                compile_network(generator)
                compile_network(discriminator)
        generated = generator(batch, samples)
        judged = discriminator(generated.shared, batch, generated.corrupted, generated.replaced)
        losses.append([float(generated.loss_sum.detach()), float(judged.loss_sum.detach())])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
