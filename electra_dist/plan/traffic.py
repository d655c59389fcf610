"""Bytes that a rank sends in an optimizer step, by ZeRO stage: what DeepSpeed's collectives move,
counted.

Comes in: a configuration, a network, a stage, a world size. Goes out: `SentBytes`.
`benchmarks/zero_stages.py` counts what is really sent.
"""

from __future__ import annotations

from typing import NamedTuple

from electra_dist.config import Config, Network, Stage
from electra_dist.plan.activations import BYTES
from electra_dist.plan.engine_memory import LIVE_PARAMETERS, bucket_elements
from electra_dist.plan.sizes import parameters


class SentBytes(NamedTuple):
    """What a rank sends for one network in one optimizer step, with ring collectives.

    all_ranks   in collectives over all ranks
    groups      in collectives within a group of hierarchical partitioning
    updated     of `all_ranks`, the weights after the update, for which everything waits
    """

    all_ranks: float
    groups: float
    updated: float = 0.0

    @property
    def total(self) -> float:
        return self.all_ranks + self.groups


def sent_bytes(
    config: Config, network: Network, vocab_size: int, stage: Stage, world_size: int
) -> SentBytes:
    """Gradients travel in `zero.communication_data_type`, weights in the network's precision.

    An all-reduce sends 2 (W-1)/W of a tensor's size, a reduce-scatter or a gathering half of it.
    DeepSpeed 0.19 all-reduces at stages 1 and 2 too (`use_multi_rank_bucket_allreduce`), at stage 2
    in every micro-batch. Weights are gathered once a step at stages 1 and 2; at stage 3 once a
    micro-batch, and again for the backward of what is beyond stage3_max_live_parameters (all but a
    bucket with `zero.offload_parameters`). With hierarchical partitioning only the first gathering
    of a step is over all ranks (arXiv 2306.10209, section 3.2): its weights then lie within each
    group, (P-1)/P of their size a gathering.
    """
    n = parameters(config, vocab_size).of(network)
    b = BYTES[config.precision_mode(network)]
    g = BYTES[config.zero.communication_data_type]
    ring = (world_size - 1) / world_size
    zero = config.sharding(network)
    micro_batches = config.accumulation(world_size)
    if stage.reduction == "all-reduce":
        reduced = 2 * g
    else:
        reduced = g
    if stage.reduces_every_micro_batch:
        reduced *= micro_batches
    if stage.gathers_weights == "never":
        return SentBytes(ring * reduced * n, 0.0)
    if stage.gathers_weights == "per step":
        return SentBytes(ring * n * (reduced + b), 0.0, ring * n * b)
    if zero.offload_parameters:
        live = bucket_elements(config, network, vocab_size)
    else:
        live = LIVE_PARAMETERS
    gathered = b * micro_batches * (n + max(0, n - live))
    group = zero.hpz_partition_size
    if not group or group >= world_size:
        return SentBytes(ring * (reduced * n + gathered), 0.0)
    return SentBytes(ring * (reduced + b) * n, (group - 1) / group * (gathered - b * n))
