"""How a step is computed: sections `train`, `optim`, `zero` and `precision`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from electra_dist.config.fields import (
    Beta,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrecisionMode,
    Section,
    StageNumber,
)


class TrainConfig(Section):
    """The loop."""

    steps: PositiveInt
    """Optimizer steps of the whole run."""
    global_rows: Annotated[int, Field(gt=0, le=2**24)]
    """Rows of one optimizer step over all ranks and accumulation steps."""
    micro_rows: PositiveInt
    """Rows of one forward and backward on one rank."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1234
    """Of data order, masks, sampling and initial weights."""
    generator_weight: NonNegativeFloat = 1.0
    """Weight of the generator's loss in the sum."""
    discriminator_weight: NonNegativeFloat = 50.0
    """Weight of the discriminator's loss in the sum."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: cuda where there is one."""
    compile: bool | None = None
    """Compile the networks, all but the generator's output layer. Default: on cuda only."""
    cuda_graphs: bool = False
    """Replay the compiled parts as CUDA graphs: for micro-batches so small that the host is slower
    than the GPU. On cuda, compiled, at zero.stage 0 to 2. Takes memory of its own for each shape.
    """
    activation_checkpointing: bool = False
    """Recompute each layer in backward instead of keeping its activations."""
    deterministic: bool = False
    """Only kernels that add in a fixed order, so that a restart on equal GPUs is equal to the bit.
    Slower on cuda; an operation that has no such kernel ends the run and is named.
    """


class OptimOverrides(Section):
    """Keys of `optim` that one network has for itself; unset ones follow `optim`."""

    lr: PositiveFloat | None = None
    weight_decay: NonNegativeFloat | None = None
    beta1: Beta | None = None
    beta2: Beta | None = None
    epsilon: PositiveFloat | None = None


#: Learning-rate schedules; `schedule.DECAYS` has the decay of each.
Schedule = Literal["linear", "cosine", "wsd"]


class OptimConfig(Section):
    """AdamW and the learning-rate schedule."""

    lr: PositiveFloat = 5e-4
    """Peak learning rate."""
    warmup_steps: NonNegativeInt = 10000
    """Steps of the linear rise to the peak."""
    schedule: Schedule = "linear"
    """After the warm-up: linear or cosine decay to the end, or warm-up, stable, linear decay."""
    decay_steps: PositiveInt | None = None
    """Steps of the final decay of schedule wsd. Default: 10% of train.steps."""
    final_lr_fraction: Fraction = 0.0
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: NonNegativeFloat = 0.01
    """Of everything but biases and LayerNorms."""
    beta1: Beta = 0.9
    """Decay of Adam's first moment."""
    beta2: Beta = 0.999
    """Decay of Adam's second moment."""
    epsilon: PositiveFloat = 1e-6
    """Added to the denominator of Adam's step."""
    clip_norm: NonNegativeFloat = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    clip_mode: Literal["joint", "separate"] = "joint"
    """One norm over both networks (ELECTRA), or one for each."""
    generator: OptimOverrides = OptimOverrides()
    discriminator: OptimOverrides = OptimOverrides()


class ZeroOverrides(Section):
    """Keys of `zero` that one network has for itself; unset ones follow `zero`."""

    stage: StageNumber | None = None
    offload_optimizer: bool | None = None
    offload_parameters: bool | None = None


class ZeroConfig(Section):
    """DeepSpeed ZeRO."""

    stage: StageNumber = 3
    """0 shards nothing, 1 the optimizer state, 2 the gradients too, 3 the parameters too."""
    persistence_threshold: NonNegativeInt = 0
    """Stage 3: parameters of fewer elements stay whole on every rank, which gathers each of them
    after every step. A parameter is the weights of a group of layers, the word embeddings, all
    other weights, or what is not decayed.
    """
    offload_optimizer: bool = False
    """Stages 1 to 3: keep master weights and moments in CPU memory, and update them there."""
    offload_parameters: bool = False
    """Stage 3, with offload_optimizer: keep each rank's share of the weights in CPU memory too; a
    layer's weights are on the GPU while it runs.
    """
    hpz_partition_size: Annotated[int, Field(ge=2)] | None = None
    """Stage 3 on many nodes (ZeRO++ hpZ): every so many consecutive ranks, normally those of a
    node, share out a second copy of the weights, so that only the first gathering of a step crosses
    nodes. Divides the world size; a world of no more ranks is one group, plain stage 3.
    """
    communication_data_type: Literal["fp32", "bf16"] = "fp32"
    """In which the ranks add up their gradients. bf16 (with precision.mode bf16 only) halves that
    traffic: each rank's gradient is rounded once before it is sent, and so are the sums on the way;
    accumulation and master weights stay fp32.
    """
    generator: ZeroOverrides = ZeroOverrides()
    discriminator: ZeroOverrides = ZeroOverrides()


def _without_fp8(mode: object) -> object:
    if mode == "fp8":
        raise ValueError(
            "fp8 is not offered: no library has been shown to train these networks to the same"
            " losses and faster than bf16 (docs/performance.md, section fp8); use bf16 (or fp16,"
            " fp32)"
        )
    return mode


class PrecisionOverrides(Section):
    """Keys of `precision` that one network has for itself; unset ones follow `precision`."""

    mode: Annotated[PrecisionMode | None, BeforeValidator(_without_fp8)] = None


class PrecisionConfig(Section):
    """Arithmetic of forward and backward; master weights and moments are always fp32."""

    mode: Annotated[PrecisionMode, BeforeValidator(_without_fp8)] = "bf16"
    """bf16, fp16 (with loss scaling) or fp32; ZeRO stage 0 needs fp32."""
    initial_scale_power: Annotated[int, Field(ge=0, le=32)] = 16
    """fp16: the first loss scale is 2 to this power."""
    scale_window: PositiveInt = 1000
    """fp16: steps without overflow after which the loss scale doubles."""
    generator: PrecisionOverrides = PrecisionOverrides()
    discriminator: PrecisionOverrides = PrecisionOverrides()
