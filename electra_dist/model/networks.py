"""Making both networks from a configuration, the same bits on every rank and device."""

from __future__ import annotations

import hashlib
import logging

import torch

from electra_dist.config import NETWORKS, Config, Network, PrecisionMode
from electra_dist.model import head
from electra_dist.model.attention import flash_implementation
from electra_dist.model.attention.backends import choose_backend
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator

logger = logging.getLogger(__name__)

DTYPES: dict[PrecisionMode, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def network_rng(seed: int, network: Network) -> torch.Generator:
    """The random stream that `network` starts from:
    its own, so that neither depends on the other.
    """
    digest = hashlib.blake2b(f"{seed}/{network}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


def _backend(config: Config, network: Network, device: torch.device) -> str:
    sizes = config.network(network)
    dtype = DTYPES[config.precision_mode(network)]
    head_size = sizes.hidden_size // sizes.heads
    dropout = config.model.attention_dropout
    deterministic = config.train.deterministic
    sequences = config.train.micro_rows * (config.data.max_documents_per_row + 1)
    backend = choose_backend(
        config.model.attention, device, dtype, head_size, dropout, deterministic, sequences
    )
    logger.info(
        "attention of the %s: %s (head size %d, %s, %s)",
        network,
        backend,
        head_size,
        dtype,
        device.type,
    )
    return backend


def _backends(config: Config, device: torch.device) -> dict[Network, str]:
    """The attention backend of each network;
    the implementation of variable-length attention is activated.
    """
    found = {network: _backend(config, network, device) for network in NETWORKS}
    heads = []
    for network, backend in found.items():
        if backend == "varlen":
            sizes = config.network(network)
            heads.append((sizes.hidden_size // sizes.heads, DTYPES[config.precision_mode(network)]))
    if heads:
        logger.info("attention: varlen runs %s", flash_implementation.activate(device, heads))
    return found


def head_backend(config: Config, device: torch.device) -> head.Backend:
    """The backend of the generator's output layer;
    raises `ConfigError` when `model.generator_head` cannot run.
    """
    return head.choose_backend(
        config.model.generator_head, device, DTYPES[config.precision_mode("generator")]
    )


def build_networks(
    config: Config, vocab_size: int, device: torch.device | str, seed: int
) -> tuple[Generator, Discriminator]:
    """Both networks in fp32 on `device`, initialised from `seed`; torch's global random state is
    not touched.

    The output bias of the generator is zero (`Generator.init_output_bias` for `model.generator_bias
    = unigram`). Raises `UserError` when `model.attention` or `model.generator_head` names a backend
    that this machine cannot run.
    """
    target = torch.device(device)
    logger.info("output layer of the generator: %s", head_backend(config, target))
    backends = _backends(config, target)
    with torch.device("meta"):
        generator = Generator(config.model, vocab_size, backends["generator"])
        discriminator = Discriminator(config.model, vocab_size, backends["discriminator"])
    _initialise(generator, discriminator, seed)
    for network in (generator, discriminator):
        network.encoder.activation_checkpointing = config.train.activation_checkpointing
        network.to(target)
    return generator, discriminator


def initial_weights(config: Config, vocab_size: int, seed: int) -> tuple[Generator, Discriminator]:
    """Networks with the weights of `build_networks`, on the CPU; for reading, not for computing."""
    with torch.device("meta"):
        generator = Generator(config.model, vocab_size, "sdpa")
        discriminator = Discriminator(config.model, vocab_size, "sdpa")
    _initialise(generator, discriminator, seed)
    return generator, discriminator


def _initialise(generator: Generator, discriminator: Discriminator, seed: int) -> None:
    """Make the weights of both, which lie on `meta`, on the CPU."""
    generator.to_empty(device="cpu")
    generator.initialise(network_rng(seed, "generator"))
    discriminator.to_empty(device="cpu")
    discriminator.initialise(network_rng(seed, "discriminator"))
