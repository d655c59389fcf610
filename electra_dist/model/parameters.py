"""How parameters start, and which ones are decayed.

Start (google-research/electra): weights and tables from a normal of `initializer_range` cut at two
standard deviations, biases 0, LayerNorm 1 and 0. Which linears start from Glorot's uniform instead
is the architecture's to say. Randomness comes from the generator passed in, on the CPU: the same
bits on any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

#: Names of the flat parameters (`flat/slots.py`): a layer's weights,
#: the word table, other weights, what is not decayed.
MATRICES = "matrices"
WORDS = "words"
SHELL = "shell"
VECTORS = "vectors"


def initialise(
    network: nn.Module, std: float, rng: torch.Generator, glorot: Sequence[str] = ()
) -> None:
    """Give every Linear, Embedding and LayerNorm inside `network` its first values;
    parameters must be on the CPU.

    glorot  linears, by name, that start from Glorot's uniform; those that `network` has not are
            left out
    """
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=rng)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
    for name in glorot:
        if any(name == path for path, _ in network.named_modules()):
            _initialise_glorot(network.get_submodule(name), rng)


def _initialise_glorot(linear: nn.Module, rng: torch.Generator) -> None:
    """Glorot and Bengio 2010, uniform: the default of TensorFlow's dense layers."""
    assert isinstance(linear, nn.Linear)
    nn.init.xavier_uniform_(linear.weight, generator=rng)


def no_decay(name: str) -> bool:
    """Whether the parameter of this name is exempt from weight decay: biases and LayerNorm are,
    embeddings are not.

    By name, because under ZeRO-3 a parameter does not show its shape.
    """
    owner, _, leaf = name.rpartition(".")
    return leaf.endswith("bias") or owner.rpartition(".")[2].endswith("norm") or leaf == VECTORS
