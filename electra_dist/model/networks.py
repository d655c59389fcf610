"""Making both networks from a configuration, the same bits on every rank and device."""

from __future__ import annotations

import hashlib

import torch

from electra_dist.config import Config, Network
from electra_dist.model.backends import choose_backends
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator


def network_rng(seed: int, network: Network) -> torch.Generator:
    """The random stream that `network` starts from:
    its own, so that neither depends on the other.
    """
    digest = hashlib.blake2b(f"{seed}/{network}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


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
    backends = choose_backends(config, target)
    with torch.device("meta"):
        generator = Generator(config.model, vocab_size, backends.generator, backends.head)
        discriminator = Discriminator(config.model, vocab_size, backends.discriminator)
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
