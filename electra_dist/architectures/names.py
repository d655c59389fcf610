"""The names and layouts of an architecture in `transformers`: what it has to offer for export.

Comes in: our parameters by name. Goes out: theirs, `config.json`, and the class that loads both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from electra_dist.architectures.sizes import ModelSizes, Network, Sharing
from electra_dist.batch import SpecialTokens

#: Whole parameters of a network by name.
State = dict[str, Tensor]


class NamesPart(Protocol):
    """Names and layouts of `transformers`; a module of functions over whole parameters."""

    @property
    def AUTO_CLASSES(self) -> Mapping[Network, str]:  # noqa: N802 - a constant of a module
        """The class of `transformers` that loads each exported network."""

    @property
    def FINE_TUNING_DROPOUT(self) -> float:  # noqa: N802 - a constant of a module
        """Dropout in an exported config.json."""

    def generator_to_huggingface(self, state: Mapping[str, Tensor], /) -> State:
        """The state of the exported generator, from ours."""

    def discriminator_to_huggingface(
        self, state: Mapping[str, Tensor], generator: Mapping[str, Tensor], sharing: Sharing, /
    ) -> State:
        """The state of the exported discriminator; `generator` supplies the embeddings unless
        `sharing` is `none`.
        """

    def from_huggingface(self, state: Mapping[str, Tensor], network: Network, /) -> State:
        """The state of a network of ours with embeddings of its own, from an exported one."""

    def with_positions(self, state: Mapping[str, Tensor], positions: int, /) -> State:
        """An exported state with the first `positions` positions alone."""

    def hf_config(
        self, config: ModelSizes, vocab_size: int, network: Network, specials: SpecialTokens, /
    ) -> dict[str, Any]:
        """Its `config.json`."""
