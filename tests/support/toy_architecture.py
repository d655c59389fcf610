"""A second architecture, for tests: ELECTRA with ReLU, where its head of the generator stays as
`transformers` has it.

Its costs are its own, too: ReLU's backward reads what it gave, so that what it read is let go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from electra_dist.architectures import ARCHITECTURES, Architecture, MicroBatchFacts, Saved
from electra_dist.architectures.electra import costs, layers, names

NAME = "toy"


class ToyRule(layers.ElectraRule):
    """ReLU in place of GELU."""

    @staticmethod
    def activate(inner_blf: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """As in the base class."""
        return F.linear(F.relu(inner_blf), weight, bias)


class ToyDiscriminatorHead(layers.ElectraDiscriminatorHead):
    """ReLU in place of GELU."""

    def forward(self, hidden_blh: Tensor) -> Tensor:
        """As in the base class."""
        out: Tensor = self.prediction(F.relu(self.dense(hidden_blh))).squeeze(-1)
        return out


#: What is not said here is as ELECTRA has it.
_LAYERS = {"make_rule": ToyRule, "make_discriminator_head": ToyDiscriminatorHead}


def layer_saved(sizes: Any, batch: MicroBatchFacts) -> list[Saved]:
    """Without what the activation reads."""
    return [
        saved
        for saved in costs.layer_saved(sizes, batch)
        if saved.name != "feed-forward in, read by GELU"
    ]


def hf_config(*arguments: Any) -> dict[str, Any]:
    """ELECTRA's, with the other activation."""
    return names.hf_config(*arguments) | {"hidden_act": "relu"}


TOY = Architecture(
    NAME,
    SimpleNamespace(**(vars(costs) | {"layer_saved": layer_saved})),
    lambda: SimpleNamespace(**(vars(layers) | _LAYERS)),
    lambda: SimpleNamespace(**(vars(names) | {"hf_config": hf_config})),
)


@contextmanager
def registered() -> Iterator[None]:
    """Within it `model.architecture` may be `toy`."""
    ARCHITECTURES[NAME] = TOY
    try:
        yield
    finally:
        del ARCHITECTURES[NAME]
