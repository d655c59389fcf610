"""What lies in one rank's memory, by kind, and when it is most: the peak of live tensor memory of a training step.

Comes in: a configuration and its surroundings. Goes out: `MemoryPlan`. A step has four moments that can be the highest
(`PHASES`); each is the sum of what both engines hold all the time, of gradients so far, of DeepSpeed's buffers at that
moment, and of what autograd has saved. What DeepSpeed 0.19 allocates was read in its sources and checked by measurement
(benchmarks/memory.py); what `train.engines` tells it is repeated here because this package knows no torch.

Letters: N parameters of one network, W ranks, b bytes of an element in the network's precision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from electra_dist.config import NETWORKS, Config, Network
from electra_dist.plan.activations import (
    BYTES,
    FP32,
    Surroundings,
    backward_temporaries,
    discriminator_saved,
    generator_saved,
    head_temporaries,
    micro_batch_sizes,
    total,
)
from electra_dist.plan.sizes import parameters

#: Elements of DeepSpeed's buffers for reduction, as `train.engines` sets them.
BUCKET_ELEMENTS = 50_000_000
#: DeepSpeed's stage3_max_live_parameters and stage3_max_reuse_distance: below it, gathered weights stay for the step.
LIVE_PARAMETERS = 1_000_000_000
#: Master weight and two moments.
OPTIMIZER_BYTES = 3 * FP32

Phase = Literal["start", "discriminator", "generator", "update"]
#: start          both networks whole and in fp32, before the engines share them out
#: discriminator  its backward begins: the activations of both networks are there
#: generator      its backward begins: its activations and the discriminator's gradients are there
#: update         the optimizers run: all gradients are there
PHASES: tuple[Phase, ...] = ("start", "discriminator", "generator", "update")


class EngineBytes(NamedTuple):
    """What one engine holds on one rank.

    weights, optimizer  all the time, gathered weights and fp32 master weights included
    kept_gradients      all the time
    gradients           from the backward to the update, `kept_gradients` not included
    buffers             all the time
    reduction           while its own gradients are reduced
    update              while its own optimizer runs
    """

    weights: float
    optimizer: float
    kept_gradients: float
    gradients: float
    buffers: float
    reduction: float
    update: float


def engine_bytes(config: Config, network: Network, vocab_size: int, stage: int, world_size: int) -> EngineBytes:
    """Memory of one engine at ZeRO `stage`, apart from activations (arXiv 1910.02054, section 5, and its sources)."""
    mode, many = config.precision_mode(network), world_size > 1
    n, b = parameters(config, vocab_size).of(network), BYTES[mode]
    share = n / world_size
    bucket = min(n, max(BUCKET_ELEMENTS, vocab_size * config.model.embedding_size))
    on_cpu = config.train.device == "cpu"
    flat, adam = FP32 * share, 2 * FP32 * share * on_cpu  # the flattened gradient; AdamW's temporaries where not fused
    if stage == 0:
        return EngineBytes(FP32 * n, 2 * FP32 * n, 0.0, FP32 * n, 0.0, FP32 * n * many, 0.0)
    if stage == 1 and mode == "bf16":  # BF16_Optimizer: whole fp32 gradients, kept
        return EngineBytes(b * n, OPTIMIZER_BYTES * share, FP32 * n, 0.0, 0.0, FP32 * n * many, adam)
    if stage < 3:
        reduction = b * bucket + (FP32 * bucket if many and b != FP32 else 0.0)
        gradients = FP32 * (n if stage == 1 else share)
        return EngineBytes(b * n, OPTIMIZER_BYTES * share, 0.0, gradients, 0.0, reduction, flat + adam)
    gathered = b * min(n, LIVE_PARAMETERS) if many else 0.0
    reduction = FP32 * bucket if many else 0.0
    return EngineBytes(
        b * share + gathered, OPTIMIZER_BYTES * share, FP32 * share, 0.0, FP32 * bucket, reduction, flat + adam
    )


@dataclass(frozen=True)
class MemoryPlan:
    """Peak of one rank's live tensor memory in bytes, by kind at that moment, and the height of every phase.

    activations   saved tensors and the temporaries of the backward
    buffers       DeepSpeed's, for reduction and update
    """

    phase: Phase
    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float
    phases: dict[Phase, float]

    @property
    def peak(self) -> float:
        """Bytes at the highest moment."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers

    def to_dict(self) -> dict[str, Any]:
        return {"peak": self.peak} | asdict(self)


class _Moment(NamedTuple):
    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float


def surroundings(config: Config, device: Literal["cpu", "cuda"]) -> Surroundings:
    """What `model.attention = auto` comes to on such a device."""
    wanted = config.model.attention
    half = all(config.precision_mode(network) != "fp32" for network in NETWORKS)
    if wanted == "auto":
        wanted = "varlen" if device == "cuda" and half and not config.model.attention_dropout else "sdpa"
    return Surroundings(device, wanted)


def plan_memory(
    config: Config,
    vocab_size: int,
    world_size: int = 1,
    device: Literal["cpu", "cuda"] = "cpu",
    stages: dict[Network, int] | None = None,
) -> MemoryPlan:
    """The memory of one of `world_size` ranks; `stages` take the place of the configured ZeRO stages."""
    config = config.model_copy(update={"train": config.train.model_copy(update={"device": device})})
    around = surroundings(config, device)
    stages = stages or {network: config.zero_stage(network) for network in NETWORKS}
    g, d = (engine_bytes(config, name, vocab_size, stages[name], world_size) for name in NETWORKS)
    moments = _moments(config, vocab_size, world_size, around, g, d)
    phase = max(PHASES, key=lambda name: sum(moments[name]))
    return MemoryPlan(phase, *moments[phase], phases={name: sum(moment) for name, moment in moments.items()})


def _moments(
    config: Config, vocab_size: int, world_size: int, around: Surroundings, g: EngineBytes, d: EngineBytes
) -> dict[Phase, _Moment]:
    weights, optimizer = g.weights + d.weights, g.optimizer + d.optimizer
    kept, buffers = g.kept_gradients + d.kept_gradients, g.buffers + d.buffers
    accumulated = 0.0
    if config.train.global_rows // world_size // config.train.micro_rows > 1:
        accumulated = g.gradients + d.gradients
    saved_g, saved_d = total(generator_saved(config, around)), total(discriminator_saved(config, around))
    size = micro_batch_sizes(config)
    exchanged = size.tokens * config.model.embedding_size * (2 * FP32 + BYTES[config.precision_mode("generator")])
    rise_g = max(
        backward_temporaries(config, "generator", around) + exchanged, head_temporaries(config, vocab_size, around)
    )
    rise_d = backward_temporaries(config, "discriminator", around)
    whole = FP32 * parameters(config, vocab_size).total
    return {
        "start": _Moment(whole + weights, kept, optimizer / 3, 0.0, buffers),
        "discriminator": _Moment(
            weights, kept + accumulated, optimizer, saved_g + saved_d + rise_d, buffers + d.reduction
        ),
        "generator": _Moment(
            weights, kept + max(accumulated, d.gradients), optimizer, saved_g + rise_g, buffers + g.reduction
        ),
        "update": _Moment(weights, kept + g.gradients + d.gradients, optimizer, 0.0, buffers + max(g.update, d.update)),
    }
