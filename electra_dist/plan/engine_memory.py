"""What one engine holds on one rank, apart from activations.

What DeepSpeed 0.19 allocates was read in its sources and checked by measurement
(benchmarks/memory.py, zero_stages.py); what `zero.engines` tells it is repeated here because this
package knows no torch.

Letters: N parameters of one network, W ranks, b bytes of an element in the network's precision.
"""

from __future__ import annotations

from typing import NamedTuple

from electra_dist.config import Config, Network, Stage, layers_of_groups
from electra_dist.plan.activations import BYTES, FP32
from electra_dist.plan.sizes import flat_parameters, layer_weights, parameters

#: Elements of DeepSpeed's buffers for reduction, as `zero.engines` sets them.
BUCKET_ELEMENTS = 50_000_000
#: DeepSpeed's stage3_max_live_parameters and stage3_max_reuse_distance:
#: below it, gathered weights stay for the step.
LIVE_PARAMETERS = 1_000_000_000
#: Master weight and two moments.
OPTIMIZER_BYTES = 3 * FP32


class EngineBytes(NamedTuple):
    """What one engine holds on one rank.

    weights           all the time, fp32 master weights not included
    gathered          weights that stage 3 has gathered, from the forward to the end of the
                      network's backward
    second            share of the second copy of hierarchical partitioning, from a step's first
                      backward to its end
    optimizer         master weights and moments, all the time
    kept_gradients    all the time
    gradients         from the backward to the update, `kept_gradients` not included
    reduced_gradients those of them that lie beside the bucket while they are reduced
    buffers           all the time
    bucket            DeepSpeed's reduction bucket, where it is made in the backward
    keeps_bucket      it is kept from one micro-batch to the next
    joined            the flat gradient of a group of layers, and those of its layers that it is
                      made of
    reduction         copies of the bucket while it is reduced
    update            while its own optimizer runs
    host              in CPU memory; not part of the others
    """

    weights: float = 0.0
    gathered: float = 0.0
    second: float = 0.0
    optimizer: float = 0.0
    kept_gradients: float = 0.0
    gradients: float = 0.0
    reduced_gradients: float = 0.0
    buffers: float = 0.0
    bucket: float = 0.0
    keeps_bucket: bool = False
    joined: float = 0.0
    reduction: float = 0.0
    update: float = 0.0
    host: float = 0.0


def engine_bytes(
    config: Config, network: Network, vocab_size: int, stage: Stage, world_size: int
) -> EngineBytes:
    """Memory of one engine at ZeRO `stage`, apart from activations (arXiv 1910.02054,
    section 5, and its sources).
    """
    engine = _engine_bytes(config, network, vocab_size, stage, world_size)
    cast = stage.keeps_whole_fp32_gradients(
        config.precision_mode(network), config.sharding(network).offload_optimizer
    )
    return engine._replace(joined=joined_bytes(config, network, cast))


def _engine_bytes(
    config: Config, network: Network, vocab_size: int, stage: Stage, world_size: int
) -> EngineBytes:
    mode = config.precision_mode(network)
    many = world_size > 1
    n = parameters(config, vocab_size).of(network)
    b = BYTES[mode]
    share = n / world_size
    zero = config.sharding(network)
    g = BYTES[zero.communication_data_type]
    flat = FP32 * share  # the flattened gradient; AdamW is fused and has no temporaries
    if not stage.shares_moments:
        return EngineBytes(
            weights=FP32 * n,
            optimizer=2 * FP32 * n,
            gradients=FP32 * n,
            reduced_gradients=FP32 * n,
            reduction=FP32 * n * many,
        )
    if stage.keeps_whole_fp32_gradients(mode, zero.offload_optimizer):
        # BF16_Optimizer: whole fp32 gradients, kept,
        # to which those of the backward are added as they come.
        return EngineBytes(
            weights=b * n,
            optimizer=OPTIMIZER_BYTES * share,
            kept_gradients=FP32 * n,
            gradients=0.0,
            reduction=g * n * many if g != FP32 else 0.0,  # copies of what is on its way
        )
    if not stage.shares_weights:
        again = config.accumulation(world_size) > 1
        bucket = bucket_elements(config, network, vocab_size)
        engine = _stage_1_and_2(n, b, g, stage, world_size, bucket, again)
        if not zero.offload_optimizer:
            return engine._replace(optimizer=OPTIMIZER_BYTES * share, update=flat)
        largest = largest_parameter(config, network, vocab_size)
        return _offloaded(engine, n, b, world_size, largest, again)
    engine = _stage_3(config, network, vocab_size, world_size)
    if zero.offload_optimizer:
        return engine
    return engine._replace(update=flat)


def joined_bytes(config: Config, network: Network, cast: bool) -> float:
    """`EngineBytes.joined`: beside the flat gradient its parts,
    or what it is `cast` to before it is added in fp32.
    """
    a_layer = layer_weights(config, network)
    count, *_ = layers_of_groups(config.network(network).layers, a_layer)
    b = BYTES[config.precision_mode(network)]
    beside = max(0 if count == 1 else b, FP32 if cast else 0)
    return (b + beside) * count * a_layer


def bucket_elements(config: Config, network: Network, vocab_size: int) -> int:
    """Elements of one reduction bucket, as `zero.engines` sets it."""
    wanted = max(BUCKET_ELEMENTS, largest_parameter(config, network, vocab_size))
    return min(parameters(config, vocab_size).of(network), wanted)


def largest_parameter(config: Config, network: Network, vocab_size: int) -> int:
    """Elements of the largest parameter:
    the word table where the network has one, or a group of layers.
    """
    return max(flat_parameters(config, vocab_size)[network])


def _stage_1_and_2(
    n: int, b: int, g: int, stage: Stage, world_size: int, bucket: int, again: bool
) -> EngineBytes:
    """Weights, gradients and reduction; the optimizer is added by the caller.

    A bucket is filled by the backward, at stage 2 in the network's precision, at stage 1 in fp32;
    ranks reduce a copy of it, `g` bytes an element. At stage 1 the gradients of the last
    micro-batch move into it. A rank's share of them is there while they are reduced where another
    precision adds them up, and twice at stage 2 where micro-batches do (`again`) in fp32.
    """
    many = world_size > 1
    share = FP32 * n / world_size
    whole = not stage.shares_gradients
    if whole:
        filled = FP32
    else:
        filled = b
    if b != FP32:
        shares = 1
    elif again and not whole:
        shares = 2
    else:
        shares = 0
    return EngineBytes(
        weights=b * n,
        gradients=FP32 * n if whole else share,
        reduced_gradients=shares * share,
        bucket=filled * bucket,
        keeps_bucket=whole,
        reduction=many * bucket * g,
    )


def _offloaded(
    engine: EngineBytes, n: int, b: int, world_size: int, largest: int, again: bool
) -> EngineBytes:
    """Stages 1 and 2 with the optimizer in CPU memory.

    Host: master weights, moments and the gradient that AdamW steps with, fp32; the weights on their
    way back; one parameter on its way; at stage 2 in fp32 the gradients that accumulate. GPU: one
    parameter on its way.
    """
    share = n / world_size
    on_the_way = b * largest
    whole = engine.gradients > FP32 * share  # stage 1 accumulates on the GPU
    if b == FP32 and again and not whole:
        accumulated = FP32 * share
    else:
        accumulated = 0.0
    if whole or b != FP32:
        gradients = engine.gradients
    else:
        gradients = 0.0
    return engine._replace(
        gradients=gradients,
        reduced_gradients=engine.reduced_gradients if gradients else 0.0,
        buffers=on_the_way,
        host=(OPTIMIZER_BYTES + FP32 + b) * share + on_the_way + accumulated,
    )


def _stage_3(config: Config, network: Network, vocab_size: int, world_size: int) -> EngineBytes:
    """Everything shared out; a bucket in what the ranks send all the time, and a flat copy while it
    is reduced.

    Gathered weights stay until their backward is done, up to `LIVE_PARAMETERS`; with
    `zero.offload_parameters` a bucket of them. Host, with the optimizer there: fp32 gradients as
    they accumulate and once more as AdamW reads them.
    """
    n = parameters(config, vocab_size).of(network)
    b = BYTES[config.precision_mode(network)]
    many = world_size > 1
    share = n / world_size
    zero = config.sharding(network)
    bucket = bucket_elements(config, network, vocab_size)
    groups = zero.hpz_partition_size
    g = BYTES[zero.communication_data_type]
    # gloo copies what a reduce-scatter reads
    if config.train.device == "cpu":
        copies = 2
    else:
        copies = 1
    # a rank's part of the sum, on its way to the fp32 ones
    if g != FP32:
        summed = FP32 / world_size
    else:
        summed = 0.0
    if zero.offload_parameters:
        live = bucket
    else:
        live = LIVE_PARAMETERS
    engine = EngineBytes(
        weights=b * share,
        gathered=b * min(n, live) if many or zero.offload_parameters else 0.0,
        second=b * n / groups if groups and groups < world_size else 0.0,
        optimizer=OPTIMIZER_BYTES * share,
        kept_gradients=FP32 * share,
        buffers=g * bucket,
        reduction=(g * copies + summed) * bucket * many,
    )
    if not zero.offload_optimizer:
        return engine
    if zero.offload_parameters:
        weights = engine.weights
    else:
        weights = 0.0
    return engine._replace(
        weights=engine.weights - weights,
        optimizer=0.0,
        kept_gradients=0.0,
        host=engine.optimizer + 2 * FP32 * share + weights,
    )
