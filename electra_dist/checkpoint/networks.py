"""The networks of a run as one of its checkpoints holds them, without DeepSpeed: what export and
evaluation start from.

Comes in: a run directory, a step or none. Goes out: generator and discriminator with the fp32
master weights, on the CPU, in memory of their own.

The run may go on training and removing old checkpoints meanwhile. Files are checked and read
through descriptors that stay open; where one is gone all the same (another host removed it from a
network file system), the next newest checkpoint is taken. Links to the files in a folder of ours
would keep them for certain, but need write permission in the run directory and would stay behind
after a kill.
"""

from __future__ import annotations

from typing import Literal

import torch

from electra_dist import config as configuration
from electra_dist.architectures.names import State
from electra_dist.checkpoint.tensors import read_network
from electra_dist.config import Config, Network
from electra_dist.console import warn
from electra_dist.errors import CheckpointError
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.runs.checkpoints import saved_steps
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import best_step

#: Times that the newest checkpoint may vanish while it is read;
#: each time training has saved a newer one.
_MOST_TRIES = 20


#: A step, or that of the best checkpoint.
ChosenStep = int | Literal["best"]


def choose_step(run: RunDir, step: ChosenStep | None) -> int:
    """`step`, by default the newest that is complete;
    raises `CheckpointError` naming the ones that exist.
    """
    if step == "best":
        return best_step(run)
    steps = run.complete_checkpoints()
    if not steps:
        raise CheckpointError(
            f"{run.checkpoints}: no complete checkpoint; train until one is saved"
            " (checkpoint.every, or Ctrl-C)"
        )
    if step is None:
        return steps[-1]
    if step not in steps:
        raise CheckpointError(
            f"`step` {step}: {run.path} has checkpoints of steps {', '.join(map(str, steps))}"
        )
    return step


def load_whole(
    run: RunDir, config: Config, step: ChosenStep | None = None
) -> tuple[int, Generator, Discriminator]:
    """Both networks of the checkpoint of `step`, and that step; by default of the newest whole one.

    Warns of damaged ones that are passed over. Raises `CheckpointError` when `step` is not whole,
    when no checkpoint is, or when it does not hold the parameters of `config`.
    """
    wanted = choose_step(run, step)
    if step is not None:
        return (wanted, *load_networks(run, config, wanted))
    passed: dict[int, str] = {}
    for _ in range(_MOST_TRIES):
        chosen = max((found for found in saved_steps(run) if found not in passed), default=None)
        if chosen is None:
            break
        try:
            states = _states(run, chosen)
        except CheckpointError as error:
            if chosen in saved_steps(run):  # else it was removed meanwhile
                passed[chosen] = (
                    str(error)
                    .removeprefix(f"{run.checkpoint(chosen)}: ")
                    .removeprefix("not whole: ")
                )
            continue
        newer = [
            f"the checkpoint of step {s} is not whole ({why})"
            for s, why in passed.items()
            if s > chosen
        ]
        if newer:
            warn(f"{run.checkpoints}: taking step {chosen}, because {'; '.join(newer)}")
        return (chosen, *_networks(run, config, chosen, states))
    why = "; ".join(f"step {number}: {reason}" for number, reason in passed.items())
    raise CheckpointError(
        f"{run.checkpoints}: no whole checkpoint: {why or 'each was removed while it was read'}"
    )


def load_networks(run: RunDir, config: Config, step: int) -> tuple[Generator, Discriminator]:
    """Both networks of a checkpoint, fp32, on the CPU, in evaluation mode; verified, no DeepSpeed.

    Raises `CheckpointError` when the files are damaged or do not hold the parameters of `config`.
    """
    return _networks(run, config, step, _states(run, step))


def _states(run: RunDir, step: int) -> dict[Network, State]:
    return {
        network: read_network(run.checkpoint(step), network) for network in configuration.NETWORKS
    }


def _networks(
    run: RunDir, config: Config, step: int, states: dict[Network, State]
) -> tuple[Generator, Discriminator]:
    folder = run.checkpoint(step)
    words = states["generator"].get("embeddings.word.weight")
    if words is None:
        raise CheckpointError(
            f"{folder}: the generator has no embeddings.word.weight; not a checkpoint of this"
            " software"
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
            raise CheckpointError(
                f"{folder}: does not hold the {network} of config.yaml: {error}"
            ) from error
        module.float().eval()
    return networks
