"""Compiling the networks and our kernels (DESIGN D4, D5), and finding out before the first step
that this machine can.

Comes in: the configuration and a network. Goes out: layers whose forward is compiled, as one graph
each; or one `UserError` on every rank that says why they cannot be. There is no fallback: a run
that would be slower than asked for does not start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from electra_dist.config import Config, Network, sequence_entries
from electra_dist.errors import UserError
from electra_dist.model import head
from electra_dist.model.attention.backends import build_layout
from electra_dist.model.backends import DTYPES
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.encoder import Layer
from electra_dist.model.flat.slots import take_over
from electra_dist.model.generator import Generator
from electra_dist.model.parameters import MATRICES, VECTORS
from electra_dist.parallel.collectives import together
from electra_dist.parallel.determinism import refusal
from electra_dist.parallel.world import World
from electra_dist.zero.toolchain import missing_for_triton

#: A dropout seed is drawn once a mask, by PyTorch;
#: the compiler would draw it again at every element that reads it.
_CPU_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}
_LONGEST_CAUSE = 300
_POSITIONS = 16


def compile_network(network: nn.Module, cuda_graphs: bool = False) -> None:
    """Compile what the modules of `network` name as their `compiled_parts`; nothing happens before
    the first call.

    One graph each: the layers, and what lies before, between and after them. All layers of a
    network share theirs, which a graph of the whole network would not: it takes as long to compile
    as it has layers. `cuda_graphs`: each is recorded and replayed;
    `torch.compiler.cudagraph_mark_step_begin` must be called before every micro-batch.
    """
    options: dict[str, str | int | bool | Callable[..., Any]] | None = None
    if next(network.parameters()).device.type == "cpu":
        options = _CPU_OPTIONS
    elif cuda_graphs:
        options = {"triton.cudagraphs": True}
    for module in network.modules():
        for name in getattr(module, "compiled_parts", ()):
            setattr(
                module, name, torch.compile(getattr(module, name), fullgraph=True, options=options)
            )


def check_compilation(
    config: Config, generator: Generator, discriminator: Discriminator, world: World
) -> None:
    """Train once, on a micro-batch, what this machine has to compile; every rank must call it.

    That is a layer like those of each network, where layers are compiled or have our kernel, and
    the generator's fused head. Raises `UserError` on every rank where any of them fails. What was
    compiled lies in the caches of PyTorch and Triton afterwards, so that the networks themselves
    compile in a fraction of the time.
    """
    device = world.device
    compiled = config.compiles(world.device.type)
    networks: dict[Network, Generator | Discriminator] = {
        "generator": generator,
        "discriminator": discriminator,
    }
    with together(world):
        for network, module in networks.items():
            backend = module.attention_backend
            if compiled or backend == "triton":
                with _explained(
                    _about_layers(config, network, backend, device), device.type == "cuda"
                ):
                    _train_layer(config, _blank_layer(config, network, backend, device), backend)
        if generator.head_backend == "triton":
            with _explained(_ABOUT_THE_HEAD, device.type == "cuda"):
                _train_head(config, generator, device)


@contextmanager
def _explained(what_and_remedy: tuple[str, str], on_cuda: bool) -> Iterator[None]:
    """Say what failed, why and what to do; running out of memory is another matter.

    A compiler that is not there fails in several ways, most of which do not say so: what is missing
    is named first.
    """
    what, remedy = what_and_remedy
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        refused = refusal(error)
        if refused:
            raise refused from error
        if on_cuda:
            missing = missing_for_triton()
        else:
            missing = None
        if missing:
            cause = f"{missing}: {_cause(error)}"
        else:
            cause = _cause(error)
        raise UserError(
            f"{what} on this machine: {cause}. {remedy} (--debug shows the whole error)"
        ) from error


def _about_layers(
    config: Config, network: Network, backend: str, device: torch.device
) -> tuple[str, str]:
    if not config.compiles(device.type):
        return (
            f"model.attention = {backend}: its kernels do not run for the {network}",
            "Mend that, or take another backend: model.attention=auto",
        )
    if config.train.compile:
        asked = "train.compile = true"
    else:
        asked = f"train.compile (on by default on {device.type})"
    return (
        f"{asked}: the layers of the {network} do not compile",
        "Mend that, or train without compilation, slower: train.compile=false",
    )


_ABOUT_THE_HEAD = (
    "the fused kernel of the generator's output layer does not run",
    "Mend that, or do without it, slower: model.generator_head=chunked",
)


def _blank_layer(config: Config, network: Network, backend: str, device: torch.device) -> Layer:
    """A layer of `network` with zeros for parameters, in its precision, compiled."""
    with torch.device("meta"):
        layer = Layer(config.model, config.network(network), backend)
    layer.to(DTYPES[config.precision_mode(network)]).to_empty(device=device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    for name, slots in ((MATRICES, layer.matrix_slots), (VECTORS, layer.vector_slots)):
        take_over(layer, layer, name, [slot.name for slot in slots])
    if config.compiles(device.type):
        compile_network(layer, config.train.cuda_graphs)
    return layer


def _train_layer(config: Config, layer: Layer, backend: str) -> None:
    """Forward and backward over one micro-batch of rows that are one document each."""
    rows = config.train.micro_rows
    length = config.data.row_length
    matrices = layer.get_parameter(MATRICES)
    vectors = layer.get_parameter(VECTORS)
    device = vectors.device
    dtype = vectors.dtype
    hidden = torch.zeros(
        rows, length, layer.hidden_size, dtype=dtype, device=device, requires_grad=True
    )
    documents = torch.zeros(rows, length, dtype=torch.int32, device=device)
    entries = sequence_entries(rows, rows, config.data.max_documents_per_row)
    ends = torch.arange(entries + 1, dtype=torch.int32, device=device) * length
    layout = build_layout(documents, ends.clamp(max=rows * length), backend, dtype)
    # Dropout draws: a run with this check and a run without it are the same run.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # as a group of layers hands them over
        parts = (tensor.view_as(tensor) for tensor in (matrices, vectors))
        layer(hidden.view_as(hidden), layout, *parts).float().sum().backward()


def _train_head(config: Config, generator: Generator, device: torch.device) -> None:
    """Forward and backward of the fused head over a few positions."""
    dtype = DTYPES[config.precision_mode("generator")]
    vocabulary, size = generator.embeddings.word.weight.shape
    hidden = torch.zeros(_POSITIONS, size, dtype=dtype, device=device, requires_grad=True)
    weight = torch.zeros(vocabulary, size, dtype=dtype, device=device, requires_grad=True)
    bias = torch.zeros(vocabulary, dtype=dtype, device=device, requires_grad=True)
    numbers = torch.arange(_POSITIONS, device=device)
    temperature = config.model.temperature
    head.masked_lm_head(
        hidden, weight, bias, numbers, numbers, temperature, "triton"
    ).nll_m.sum().backward()


def _cause(error: Exception) -> str:
    """What went wrong, in one line: the innermost error that says something."""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    words = str(inner).strip().partition("\n")[0].rstrip(". ") or "no message"
    text = f"{type(inner).__name__}: {words}"
    if len(text) <= _LONGEST_CAUSE:
        return text
    return text[: _LONGEST_CAUSE - 3] + "..."
