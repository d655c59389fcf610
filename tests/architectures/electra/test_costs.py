"""What ELECTRA's costs say of shapes is what its modules have."""

from __future__ import annotations

import pytest

from electra_dist.architectures.electra import costs
from electra_dist.config import NETWORKS
from electra_dist.model.encoder import Layer
from electra_dist.model.networks import initial_weights
from electra_dist.model.parameters import no_decay
from tests.support.small import make_config

VOCABULARY = 200


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_shapes_are_those_of_the_modules(sharing: str) -> None:
    config = make_config(f"model.embedding_sharing={sharing}")
    networks = dict(zip(NETWORKS, initial_weights(config, VOCABULARY, 1), strict=True))
    for network, module in networks.items():
        said = {
            **_under("head", costs.head_shapes(config.model, network)),
            **{
                name: shape
                for index in range(config.network(network).layers)
                for name, shape in _under(
                    f"encoder.layers.{index}", costs.layer_shapes(config.network(network))
                ).items()
            },
        }
        tables = costs.embedding_shapes(config.model, VOCABULARY)
        if network == "generator" or sharing == "none":
            said |= _under("embeddings", tables)
        elif sharing == "disentangled":
            said |= _under("deltas", tables)
        shared_by_all = ("encoder.project.", "output_bias")
        there = {
            name: tuple(parameter.shape)
            for name, parameter in module.named_parameters()
            if not name.startswith(shared_by_all)
        }
        assert said == there


def test_what_has_one_dimension_is_what_is_not_decayed() -> None:
    config = make_config()
    layer = Layer(config.model, config.model.generator, "sdpa")
    for name, shape in costs.layer_shapes(config.model.generator).items():
        assert (len(shape) == 1) == no_decay(name)
    assert {name for name, _ in layer.named_parameters()} == set(
        costs.layer_shapes(config.model.generator)
    )


def _under(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}
