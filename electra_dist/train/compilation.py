"""Compiling the layers (DESIGN D4), and finding out before the first step that this machine can.

Comes in: the configuration and a network. Goes out: layers whose forward is compiled, as one graph each; or one
`UserError` on every rank that says why they cannot be. There is no fallback: a run that would be slower than asked for
does not start.
"""

from __future__ import annotations

import torch
from torch import nn

from electra_dist.config import Config, Network
from electra_dist.data.rows import documents_per_row
from electra_dist.errors import UserError
from electra_dist.model.attention import build_layout
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.encoder import Layer
from electra_dist.model.generator import Generator
from electra_dist.model.networks import DTYPES
from electra_dist.train.distributed import World, together

_LONGEST_CAUSE = 300


def compiles(config: Config, device: torch.device) -> bool:
    """Whether `train.compile` comes to compiled layers on `device`."""
    return device.type == "cuda" if config.train.compile is None else config.train.compile


def compile_layers(module: nn.Module) -> None:
    """Compile the forward of every layer; nothing happens before its first call."""
    for layer in module.modules():
        if isinstance(layer, Layer):
            layer.forward = torch.compile(layer.forward, fullgraph=True)  # type: ignore[method-assign]


def check_compilation(config: Config, generator: Generator, discriminator: Discriminator, world: World) -> None:
    """Compile a layer like those of each network and train it once on a micro-batch; every rank must call it.

    Raises `UserError` on every rank where any of them cannot. What was compiled lies in PyTorch's cache afterwards, so
    that the layers themselves compile in a fraction of the time.
    """
    if not compiles(config, world.device):
        return
    networks: dict[Network, Generator | Discriminator] = {"generator": generator, "discriminator": discriminator}
    with together(world):
        for network, module in networks.items():
            _try_layer(config, network, module.attention_backend, world.device)


def _try_layer(config: Config, network: Network, backend: str, device: torch.device) -> None:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # dropout draws: a run with and without this check is the same run
        layer = _blank_layer(config, network, backend, device)
        try:
            _train_once(config, layer, backend, device)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise UserError(_message(config, network, device, error)) from error


def _blank_layer(config: Config, network: Network, backend: str, device: torch.device) -> Layer:
    """A layer of `network` with zeros for parameters, in its precision, compiled."""
    with torch.device("meta"):
        layer = Layer(config.model, config.network(network), backend)
    layer.to(DTYPES[config.precision_mode(network)]).to_empty(device=device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    compile_layers(layer)
    return layer


def _train_once(config: Config, layer: Layer, backend: str, device: torch.device) -> None:
    """Forward and backward over one micro-batch of rows that are one document each."""
    rows, length = config.train.micro_rows, config.data.row_length
    weight = layer.query_key_value.weight
    hidden = torch.zeros(rows, length, weight.shape[1], dtype=weight.dtype, device=device, requires_grad=True)
    documents = torch.zeros(rows, length, dtype=torch.int32, device=device)
    ends = torch.arange(rows * (documents_per_row(config) + 1) + 1, dtype=torch.int32, device=device) * length
    layout = build_layout(documents, ends.clamp(max=rows * length), backend)
    layer(hidden, layout).float().sum().backward()


def _message(config: Config, network: Network, device: torch.device, error: Exception) -> str:
    asked = "train.compile = true" if config.train.compile else f"train.compile (on by default on {device.type})"
    return (
        f"{asked}: the layers of the {network} do not compile on this machine: {_cause(error)}. Mend that, or train"
        " without compilation, slower: train.compile=false (--debug shows the whole error)"
    )


def _cause(error: Exception) -> str:
    """What went wrong, in one line: the innermost error that says something."""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    words = str(inner).strip().partition("\n")[0].rstrip(". ") or "no message"
    text = f"{type(inner).__name__}: {words}"
    return text if len(text) <= _LONGEST_CAUSE else text[: _LONGEST_CAUSE - 3] + "..."
