"""The networks as a run starts with them: a pure function of configuration, data and seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from electra_dist.config import Config, Network
from electra_dist.data.sources import RunData
from electra_dist.model import networks
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator


def initial_networks(
    config: Config, data: RunData, device: torch.device
) -> tuple[Generator, Discriminator]:
    """Both networks on `device`, ready for their engines."""
    generator, discriminator = networks.build_networks(
        config, data.vocab_size, device, config.train.seed
    )
    _set_bias(generator, config, data)
    return generator, discriminator


def initial_weights(config: Config, data: RunData) -> dict[Network, Mapping[str, Tensor]]:
    """The same weights by name, fp32, on the CPU."""
    generator, discriminator = networks.initial_weights(config, data.vocab_size, config.train.seed)
    _set_bias(generator, config, data)
    return {"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}


def _set_bias(generator: Generator, config: Config, data: RunData) -> None:
    if config.model.generator_bias == "unigram":
        generator.init_output_bias(_log_frequencies(data))


def _log_frequencies(data: RunData) -> torch.Tensor:
    """Log of each token's share of the training text;
    a token that never occurs counts as seen half a time.
    """
    counts = np.maximum(data.token_counts.astype(np.float64), 0.5)
    return torch.from_numpy(np.log(counts / counts.sum())).float()
