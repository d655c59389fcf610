"""Both networks as plain PyTorch modules: untrained, or of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from electra_dist.api.common import DeviceName

if TYPE_CHECKING:
    from electra_dist.batch import MicroBatch
    from electra_dist.config import Config
    from electra_dist.evaluate.heldout import Judged
    from electra_dist.model.discriminator import Discriminator
    from electra_dist.model.generator import Generator


@dataclass(frozen=True)
class Networks:
    """Both networks on one device, fp32, in evaluation mode: plain PyTorch modules.

    config  that they were built from
    step    optimizer steps behind them; 0 for networks that are not trained
    """

    generator: Generator
    discriminator: Discriminator
    config: Config
    step: int


def build_networks(config: Config, device: DeviceName = "cpu") -> Networks:
    """Both networks with the weights that a run of `config` starts from.

    Args:
        config: sizes and seed; its shards (`data.shards`) give the vocabulary and, for
            `model.generator_bias = unigram`, the token frequencies.
        device: where they lie.

    Returns:
        Untrained networks, step 0.

    Raises:
        ConfigError: an attention backend that this machine cannot run.
        DataError: no shards at `data.shards`.
        UserError: `device` is not there.

    Examples:
        >>> networks = electra_dist.build_networks(config)
        >>> sum(p.numel() for p in networks.discriminator.parameters())
    """
    from electra_dist.data.sources import check_vocabulary, open_data
    from electra_dist.parallel.hardware import device_of_command
    from electra_dist.train.initial import initial_networks

    target = device_of_command(device)
    data = open_data(config)
    check_vocabulary(config, data)
    generator, discriminator = initial_networks(config, data, target)
    return Networks(generator.eval(), discriminator.eval(), config, step=0)


def load_networks(
    run: str | Path, step: int | Literal["best"] | None = None, device: DeviceName = "cpu"
) -> Networks:
    """Both networks of a run as a checkpoint holds them, verified, without DeepSpeed.

    Args:
        run: the run directory.
        step: the checkpoint, or `best`; by default the newest that is whole.
        device: where they lie.

    Returns:
        The networks with the fp32 master weights, and the step that they are of.

    Raises:
        CheckpointError: no such checkpoint, or files that are damaged.
        UserError: no run there, or `device` is not there.

    Examples:
        >>> networks = electra_dist.load_networks("runs/quickstart", step=2000)
    """
    from electra_dist import config as configuration
    from electra_dist.checkpoint.networks import load_whole
    from electra_dist.parallel.hardware import device_of_command
    from electra_dist.runs.directory import RunDir

    target = device_of_command(device)
    folder = RunDir.existing(run)
    config = configuration.load(folder.config)
    found, generator, discriminator = load_whole(folder, config, step)
    return Networks(generator.to(target), discriminator.to(target), config, found)


def judge(networks: Networks, batch: MicroBatch) -> Judged:
    """Both networks over one micro-batch: what the generator put in, what the discriminator says.

    Args:
        networks: from `load_networks` or `build_networks`.
        batch: one of `Step.micro_batches`.

    Returns:
        `corrupted` (rows, row length), the ids that the discriminator read; `logits` of the same
        shape, above 0 for "replaced"; `observed`, flat arrays of the masked and the real tokens,
        losses in nats.

    Examples:
        >>> batch = next(electra_dist.stream_steps(config)).micro_batches[0]
        >>> judged = electra_dist.judge(networks, batch)
        >>> replaced = judged.corrupted != batch.tokens
    """
    from electra_dist.evaluate import heldout
    from electra_dist.model.inputs import to_device

    pair = heldout.Networks(networks.generator, networks.discriminator)
    device = networks.generator.output_bias.device
    return heldout.judge(pair, to_device(batch, device))
