"""The networks of a run as one of its checkpoints holds them, without DeepSpeed: what export and evaluation start from.

Comes in: a run directory, a step. Goes out: generator and discriminator with the fp32 master weights, on the CPU.
"""

from __future__ import annotations

import torch

from electra_dist import config as configuration
from electra_dist.config import Config, Network
from electra_dist.errors import CheckpointError
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.huggingface import State
from electra_dist.rundir import RunDir
from electra_dist.train.checkpoint_format import read_network


def choose_step(run: RunDir, step: int | None) -> int:
    """`step`, by default the newest whole one; raises `CheckpointError` naming the ones that exist."""
    steps = run.complete_checkpoints()
    if not steps:
        raise CheckpointError(
            f"{run.checkpoints}: no complete checkpoint; train until one is saved (checkpoint.every, or Ctrl-C)"
        )
    if step is None:
        return steps[-1]
    if step not in steps:
        raise CheckpointError(f"--step {step}: {run.path} has checkpoints of steps {', '.join(map(str, steps))}")
    return step


def load_networks(run: RunDir, config: Config, step: int) -> tuple[Generator, Discriminator]:
    """Both networks of a checkpoint, fp32, on the CPU, in evaluation mode; verified, no DeepSpeed.

    Raises `CheckpointError` when the files are damaged or do not hold the parameters of `config`.
    """
    folder = run.checkpoint(step)
    states: dict[Network, State] = {network: read_network(folder, network) for network in configuration.NETWORKS}
    words = states["generator"].get("embeddings.word.weight")
    if words is None:
        raise CheckpointError(
            f"{folder}: the generator has no embeddings.word.weight; not a checkpoint of this software"
        )
    with torch.device("meta"):
        networks = (
            Generator(config.model, words.shape[0], "sdpa"),
            Discriminator(config.model, words.shape[0], "sdpa"),
        )
    for network, module in zip(configuration.NETWORKS, networks, strict=True):
        try:
            module.load_state_dict(states[network], assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: does not hold the {network} of config.yaml: {error}") from error
        module.float().eval()
    return networks
