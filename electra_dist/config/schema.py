"""The sections of a run configuration, typed: every key with its default, its limits and what it
means.

Frozen objects without behaviour beyond looking up what one network sees. `reading` makes them,
`checks` says which combinations cannot be.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Network = Literal["generator", "discriminator"]
NETWORKS: tuple[Network, ...] = get_args(Network)

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Stage = Annotated[int, Field(ge=0, le=3)]
PrecisionMode = Literal["bf16", "fp16", "fp32"]
#: Sizes of networks, bounded by far more than anybody trains:
#: a configuration may be somebody else's.
Layers = Annotated[int, Field(gt=0, le=1000)]
Width = Annotated[int, Field(gt=0, le=2**18)]
Vocabulary = Annotated[int, Field(gt=0, le=2**24)]
#: A name that becomes a folder, a W&B run and a Slurm job.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Section(BaseModel):
    """A frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class RunConfig(Section):
    """Where the run lives: everything it writes lies in `dir/name`."""

    dir: str = "runs"
    """Folder that holds all runs."""
    name: Name = "run"
    """Name of this run and of its folder: letters, digits, '.', '_' and '-'."""

    @property
    def path(self) -> Path:
        return Path(self.dir) / self.name


class WrittenData(Section):
    """The shards and how rows are made of them."""

    shards: str
    """Folder written by `electra-dist data build` (holds manifest.json)."""
    row_length: Annotated[int, Field(ge=8, le=32768)] = 512
    """Tokens a row, [CLS] and [SEP] included."""
    streams: PositiveInt | None = None
    """Canonical streams; divides train.global_rows; the world size must divide it. Default: the
    largest divisor of train.global_rows up to 256.
    """
    max_documents_per_row: Annotated[int, Field(gt=0, le=32768)] | None = None
    """Documents packed into one row at most. Default: row_length / 8, at least 4."""
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of the non-special tokens of a row that the generator predicts."""
    mask_token_fraction: Fraction = 0.85
    """Fraction of the selected tokens shown as [MASK]; the others are shown unchanged."""
    prefetch_steps: PositiveInt = 2
    """Whole steps prepared ahead of the one that trains."""
    verify: Literal["sizes", "checksums"] = "sizes"
    """What is checked of every shard before training: file sizes, or SHA-256 as well."""
    skip_steps: tuple[tuple[NonNegativeInt, PositiveInt], ...] = ()
    """Rows to pass over, in steps of data from 0: [[120, 125]] leaves out the rows of steps 120 to
    124; every later step takes the rows that follow. The guard adds those of a divergence by
    itself.
    """


class DataConfig(WrittenData):
    """`WrittenData` with what follows from other keys filled in."""

    streams: PositiveInt
    max_documents_per_row: Annotated[int, Field(gt=0, le=32768)]


class NetworkConfig(Section):
    """The encoder of one network."""

    layers: Layers
    """Encoder layers."""
    hidden_size: Width
    """Width of the encoder."""
    heads: Width
    """Attention heads; must divide hidden_size."""
    ffn_size: Width
    """Inner width of the feed-forward part."""


class ModelConfig(Section):
    """Sizes and structure of both networks."""

    preset: Literal["tiny", "small", "base", "large", "xl"] = "small"
    """Named sizes; keys set beside it win."""
    vocab_size: Vocabulary | None = None
    """Default: the vocabulary of the shards; when set, it must equal it."""
    embedding_size: Width
    """Width of the embedding tables; projected where it differs from hidden_size."""
    max_positions: Annotated[int, Field(gt=0, le=2**20)] = 512
    """Positions of the table: the longest row."""
    embedding_sharing: Literal["shared", "disentangled", "none"] = "shared"
    """shared: one embedding for both (ELECTRA). disentangled: the discriminator adds its own delta
    to the detached embeddings of the generator (DeBERTaV3). none: each network has its own.
    """
    generator: NetworkConfig
    discriminator: NetworkConfig
    dropout: Probability = 0.0
    """Of embeddings and layer outputs (ELECTRA: 0.1)."""
    attention_dropout: Probability = 0.0
    """Of attention weights; above 0 the backends triton and sdpa run, varlen does not."""
    layer_norm_epsilon: PositiveFloat = 1e-12
    """Added to the variance in LayerNorm."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the truncated normal that weights start from."""
    generator_bias: Literal["zeros", "unigram"] = "unigram"
    """Start of the generator's output bias:
    zeros (ELECTRA), or the log frequency of each token in the shards.
    """
    temperature: PositiveFloat = 1.0
    """Temperature of the softmax that replaced tokens are sampled from."""
    attention: Literal["auto", "sdpa", "varlen", "triton"] = "auto"
    """Attention backend. auto: the fastest one that this machine runs; the choice is logged.
    varlen: FlashAttention 3 or 4 where its package is installed, else 2.
    """
    generator_head: Literal["auto", "chunked", "triton"] = "auto"
    """Backend of the generator's output layer. auto:
    triton (one fused kernel) on cuda, chunked elsewhere.
    """


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


class OptimConfig(Section):
    """AdamW and the learning-rate schedule."""

    lr: PositiveFloat = 5e-4
    """Peak learning rate."""
    warmup_steps: NonNegativeInt = 10000
    """Steps of the linear rise to the peak."""
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
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

    stage: Stage | None = None
    offload_optimizer: bool | None = None
    offload_parameters: bool | None = None


class ZeroConfig(Section):
    """DeepSpeed ZeRO."""

    stage: Stage = 3
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
            " losses and faster than bf16 (docs/step.md, section fp8); use bf16 (or fp16,"
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


class CheckpointConfig(Section):
    """When the state is saved; an interruption and the end of the run always save."""

    every: PositiveInt = 1000
    """Steps between two checkpoints."""
    keep: PositiveInt = 3
    """Newest checkpoints kept; older ones are removed after a new one is whole.
    The newest healthy one is never removed.
    """
    milestones_every: PositiveInt | None = None
    """Checkpoints whose step is a multiple of this are kept for good, beside the `keep` newest."""
    asynchronous: bool = True
    """Copy the state to memory and write it in the background while training goes on;
    false waits for the disk.
    """


class ValidationConfig(Section):
    """Losses on the held-out split."""

    every: NonNegativeInt = 1000
    """Steps between two validations; 0 turns them off (the end of the run still has one)."""
    rows: PositiveInt = 512
    """Rows of one validation at most; always the same ones, with the same masks."""


def _words(command: object) -> object:
    if isinstance(command, str):
        return shlex.split(command)
    return command


class TrackingConfig(Section):
    """Metrics: metrics.jsonl always, W&B beside it."""

    every: PositiveInt = 10
    """Steps between two logged ones."""
    wandb: Literal["online", "offline", "disabled"] = "offline"
    """offline writes files in the run directory, which `electra-dist sync` brings to the server.
    WANDB_MODE counts where it is more private.
    """
    project: str = "electra-dist"
    """W&B project."""
    entity: str | None = None
    """W&B user or team. Default: that of the login."""
    tags: tuple[str, ...] = ()
    """Tags of the W&B run."""
    on_event: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Command that is started when the run starts, resumes, rolls back, is interrupted, hangs,
    fails, diverges or finishes: a list of words, or one line that is split as a shell would; it is
    never given to a shell. Run, event, reason and step stand in its environment (ELECTRA_DIST_RUN,
    _NAME, _EVENT, _REASON, _STEP).
    """
    event_seconds: PositiveFloat = 30.0
    """The command is killed after that long."""


class GuardConfig(Section):
    """Divergence: what counts as one, and how often the run goes back
    to a healthy checkpoint and past the rows.
    """

    enabled: bool = True
    """Watch skipped steps and losses; roll back when they say that training diverged."""
    max_skips: PositiveInt = 10
    """Steps in a row with a gradient that is not finite. With fp16,
    the halvings of the first loss scale come on top.
    """
    max_loss_factor: Annotated[float, Field(gt=1)] = 10.0
    """A step's loss above this many times that of a uniform guess (ln V for the generator, ln 2 for
    the discriminator) is a spike, whatever was before.
    """
    spike_deviations: PositiveFloat = 10.0
    """A step's loss is a spike when it lies this many robust standard deviations (1.4826 times the
    median absolute deviation, at least 2% of the median) above the median of the last `window`
    steps.
    """
    spike_steps: PositiveInt = 5
    """Spikes in a row that make a divergence; one alone is a hard batch."""
    window: Annotated[int, Field(ge=16)] = 128
    """Steps that the median is taken over;
    before a quarter of them is there, only `max_loss_factor` counts.
    """
    margin_steps: NonNegativeInt = 1
    """Steps before the first offending one whose rows are skipped as well:
    its loss shows what the step before did.
    """
    max_rollbacks: NonNegativeInt = 3
    """Rollbacks without a new healthy checkpoint after which the run ends, with exit status 70."""


class WatchdogConfig(Section):
    """Hangs: seconds without a sign of progress after which
    the run is ended with exit status 69.
    """

    enabled: bool = True
    """Watch the ranks from a thread of its own, and end the run when one of them hangs."""
    meet_seconds: PositiveFloat = 180.0
    """For all ranks to meet at the start."""
    start_seconds: PositiveFloat = 1800.0
    """For everything before the first step: imports, checks, networks,
    engines, compilation, loading a checkpoint.
    """
    step_seconds: PositiveFloat | None = None
    """For one step. Default: 30 times the median of the measured steps, at least 300;
    1800 until they are measured.
    """
    data_seconds: PositiveFloat = 600.0
    """For the next step's rows to be read."""
    checkpoint_seconds: PositiveFloat = 1800.0
    """For one checkpoint."""
    validation_seconds: PositiveFloat = 3600.0
    """For one validation."""


class WrittenConfig(Section):
    """One run as people write it: what they leave out takes the defaults."""

    run: RunConfig = RunConfig()
    data: WrittenData
    model: ModelConfig
    train: TrainConfig
    optim: OptimConfig = OptimConfig()
    zero: ZeroConfig = ZeroConfig()
    precision: PrecisionConfig = PrecisionConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    tracking: TrackingConfig = TrackingConfig()
    guard: GuardConfig = GuardConfig()
    watchdog: WatchdogConfig = WatchdogConfig()


class Config(WrittenConfig):
    """One run, resolved: every default that follows from other keys is filled in.

    The only configuration that the library takes; `electra_dist.config.build` makes it.
    """

    data: DataConfig

    def accumulation(self, world_size: int) -> int:
        """Micro-batches of one optimizer step on each rank."""
        return max(1, self.train.global_rows // world_size // self.train.micro_rows)

    def network(self, network: Network) -> NetworkConfig:
        if network == "generator":
            return self.model.generator
        return self.model.discriminator

    def zero_stage(self, network: Network) -> int:
        override: int | None = getattr(self.zero, network).stage
        if override is None:
            return self.zero.stage
        return override

    def sharding(self, network: Network) -> ZeroConfig:
        """`zero` as `network` sees it: its own keys in place of the common ones."""
        own = getattr(self.zero, network).model_dump(exclude_none=True)
        return self.zero.model_copy(update=own)

    def hpz_partition_size(self, network: Network, world_size: int) -> int | None:
        """Ranks of one group of hierarchical partitioning;
        None where nothing is partitioned twice.
        """
        size = self.zero.hpz_partition_size
        if size and size < world_size and self.zero_stage(network) == 3:
            return size
        return None

    def compiles(self, device: str) -> bool:
        """Whether `train.compile` comes to compiled layers on a device of type `device`:
        by default on CUDA alone.
        """
        if self.train.compile is None:
            return device == "cuda"
        return self.train.compile

    def precision_mode(self, network: Network) -> PrecisionMode:
        return getattr(self.precision, network).mode or self.precision.mode

    def optimizer(self, network: Network) -> OptimConfig:
        """`optim` as `network` sees it: its own keys in place of the common ones."""
        own = getattr(self.optim, network).model_dump(exclude_none=True)
        return self.optim.model_copy(update=own)
