"""A run configuration, typed: every key with its default, its limits and what it means.

The sections are frozen objects without behaviour: `run` and `data` are here, the others in
`networks`, `training` and `operation`. `Config` is the whole, and looks up what one network sees.
`reading` makes it, `checks` has the combinations that cannot be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from electra_dist.config.fields import (
    Fraction,
    Name,
    Network,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrecisionMode,
    Section,
)
from electra_dist.config.networks import ModelConfig, NetworkConfig
from electra_dist.config.operation import (
    CheckpointConfig,
    GuardConfig,
    TrackingConfig,
    ValidationConfig,
    WatchdogConfig,
)
from electra_dist.config.stages import STAGES, Stage
from electra_dist.config.training import OptimConfig, PrecisionConfig, TrainConfig, ZeroConfig
from electra_dist.files.urls import is_url


class RunConfig(Section):
    """Where the run lives: everything it writes lies in `dir/name`."""

    dir: str = "runs"
    """Folder that holds all runs."""
    name: Name = "run"
    """Name of this run and of its folder: letters, digits, '.', '_' and '-'."""

    @property
    def path(self) -> Path:
        return Path(self.dir) / self.name


class SourceConfig(Section):
    """One folder of shards in a mixture."""

    shards: str
    """Folder written by `electra-dist data build`."""
    weight: PositiveFloat | None = None
    """Fraction of the real tokens of a step, measured by the sum of all weights. Give it for every
    source, or for none: their own tokens decide then (`data.temperature`).
    """
    name: Name | None = None
    """Name in logs and metrics. Default: the folder's, or that of the folder around one that is
    called shards.
    """


class WrittenData(Section):
    """The shards and how rows are made of them."""

    shards: str | None = None
    """Folder written by `electra-dist data build` (holds manifest.json), or its URL: `s3://`,
    `gs://` or `https://`, with data.cache. This key or `data.sources` must be set.
    """
    sources: tuple[SourceConfig, ...] = ()
    """Several folders, mixed: [{shards: a, weight: 3, name: a}, ...]. `name` is for logs and
    metrics; weights are fractions of the real tokens of a step, measured by their sum. All must be
    of one tokenizer. See [mixing](mixing.md).
    """
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """In place of weights: a source of n tokens weighs n to the power of this. 1 keeps the
    proportions of the corpora, 0 makes all sources equal; around 0.5 helps small languages.
    Default with sources that have no weights: 1.
    """
    cache: str | None = None
    """Folder on a disk of each node, for what is fetched of shards at a URL."""
    cache_bytes: Annotated[int, Field(gt=0)] = 64_000_000_000
    """Bytes of blocks in `data.cache` at most; the least recently used ones go first."""
    row_length: Annotated[int, Field(ge=8, le=32768)] = 512
    """Tokens a row, [CLS] and [SEP] included."""
    streams: PositiveInt | None = None
    """Canonical streams; divides train.global_rows; as many ranks can train at most. Default: the
    largest divisor of train.global_rows up to 1024.
    """
    open_blocks: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Blocks that a stream draws its rows from at most: more of them keep the rows of a long
    document further apart and take more memory. Default: three times the rows that a stream gives
    to a step, at most 64.
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
    open_blocks: Annotated[int, Field(gt=0, le=1024)]
    max_documents_per_row: Annotated[int, Field(gt=0, le=32768)]

    @property
    def local_folders(self) -> tuple[str, ...]:
        """Those of `folders` that are no URL."""
        return tuple(folder for folder in self.folders if not is_url(folder))

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of shards, of all sources."""
        if self.shards is not None:
            return (self.shards,)
        return tuple(source.shards for source in self.sources)


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
        """Micro-batches of one optimizer step on each rank, those of the rank with most streams."""
        rows = self.train.global_rows // self.data.streams
        most = rows * -(-self.data.streams // world_size)
        return -(-most // self.train.micro_rows)

    def idle_share(self, world_size: int) -> float:
        """Fraction of a step's rows that are empty, because the streams do not divide evenly."""
        rows = self.accumulation(world_size) * self.train.micro_rows * world_size
        return 1 - self.train.global_rows / rows

    def network(self, network: Network) -> NetworkConfig:
        if network == "generator":
            return self.model.generator
        return self.model.discriminator

    def stage(self, network: Network) -> Stage:
        """The ZeRO stage of `network`: what lies where on the ranks."""
        return STAGES[self.sharding(network).stage]

    def sharding(self, network: Network) -> ZeroConfig:
        """`zero` as `network` sees it: its own keys in place of the common ones."""
        own = getattr(self.zero, network).model_dump(exclude_none=True)
        return self.zero.model_copy(update=own)

    def hpz_partition_size(self, network: Network, world_size: int) -> int | None:
        """Ranks of one group of hierarchical partitioning;
        None where nothing is partitioned twice.
        """
        size = self.zero.hpz_partition_size
        if size and size < world_size and self.stage(network).can_partition_twice:
            return size
        return None

    def compiles(self, device: str) -> bool:
        """Whether `train.compile` resolves to compiled layers on a device of type `device`:
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
