"""Which backends run: attention of each network, and the generator's output layer.

Comes in: a configuration and a device. Goes out: `Backends`, chosen once, before the networks are
made of them; `train` and `bench` print them. Nothing is chosen in a forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from electra_dist.config import NETWORKS, Config, Network, PrecisionMode
from electra_dist.model import head
from electra_dist.model.attention import flash_implementation
from electra_dist.model.attention.backends import choose_backend

DTYPES: dict[PrecisionMode, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


@dataclass(frozen=True)
class Backends:
    """What runs on one device.

    generator, discriminator    attention of each network
    head                        of the generator's output layer
    """

    generator: str
    discriminator: str
    head: head.Backend


def choose_backends(config: Config, device: torch.device) -> Backends:
    """The backends of `model.attention` and `model.generator_head` on `device`.

    Where `varlen` is among them, its implementation is activated for this process. Raises
    `ConfigError` for a backend that this machine cannot run.
    """
    attention = {network: _attention(config, network, device) for network in NETWORKS}
    heads = [
        (_head_size(config, network), _dtype(config, network))
        for network, backend in attention.items()
        if backend == "varlen"
    ]
    if heads:
        flash_implementation.activate(device, heads)
    output = head.choose_backend(config.model.generator_head, device, _dtype(config, "generator"))
    return Backends(attention["generator"], attention["discriminator"], output)


def _attention(config: Config, network: Network, device: torch.device) -> str:
    return choose_backend(
        config.model.attention,
        device,
        _dtype(config, network),
        _head_size(config, network),
        config.model.attention_dropout,
        config.train.deterministic,
        config.train.micro_rows * (config.data.max_documents_per_row + 1),
    )


def _dtype(config: Config, network: Network) -> torch.dtype:
    return DTYPES[config.precision_mode(network)]


def _head_size(config: Config, network: Network) -> int:
    sizes = config.network(network)
    return sizes.hidden_size // sizes.heads
