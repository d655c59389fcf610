"""What the steps of one rank are made of: the part of a configuration that order, packing and masks
depend on, and the rank's place among the ranks.

Everything that makes steps takes this instead of a whole configuration. It crosses to the loader's
process as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from electra_dist.config import Config, check_world
from electra_dist.data.skips import Interval
from electra_dist.data.streams import streams_of_rank


@dataclass(frozen=True)
class RowFormat:
    """How rows are made of documents, masked, and cut into micro-batches.

    micro_rows             rows of a micro-batch
    row_length             tokens of a row, special ones included
    max_documents_per_row  documents packed into one row at most
    mask_fraction          of the tokens of a row, those that are masked
    mask_token_fraction    of these, those that are shown as [MASK]
    """

    seed: int
    micro_rows: int
    row_length: int
    max_documents_per_row: int
    mask_fraction: float
    mask_token_fraction: float

    @classmethod
    def of(cls, config: Config) -> RowFormat:
        """That of a configuration."""
        data = config.data
        return cls(
            seed=config.train.seed,
            micro_rows=config.train.micro_rows,
            row_length=data.row_length,
            max_documents_per_row=data.max_documents_per_row,
            mask_fraction=data.mask_fraction,
            mask_token_fraction=data.mask_token_fraction,
        )


@dataclass(frozen=True)
class StepPlan:
    """The steps of one rank, as far as they do not depend on the data.

    streams         canonical streams of all ranks together
    open_blocks     blocks that a stream draws from at most
    global_rows     rows of a step, all ranks together
    micro_batches   micro-batches of a step on each rank; the last ones may hold idle rows
    steps           number of the step that is not made any more
    skipped         steps of data that are passed over
    prefetch_steps  steps that are made ahead
    """

    rows: RowFormat
    streams: int
    open_blocks: int
    global_rows: int
    micro_batches: int
    steps: int
    skipped: tuple[Interval, ...]
    prefetch_steps: int
    rank: int
    world_size: int

    @classmethod
    def of(cls, config: Config, rank: int, world_size: int, steps: int | None = None) -> StepPlan:
        """That of a configuration; `steps` takes the place of `train.steps`.

        Raises `ConfigError` when the world size does not fit.
        """
        check_world(config, world_size)
        if steps is None:
            steps = config.train.steps
        return cls(
            rows=RowFormat.of(config),
            streams=config.data.streams,
            open_blocks=config.data.open_blocks,
            global_rows=config.train.global_rows,
            micro_batches=config.accumulation(world_size),
            steps=steps,
            skipped=config.data.skip_steps,
            prefetch_steps=config.data.prefetch_steps,
            rank=rank,
            world_size=world_size,
        )

    @property
    def rows_per_stream(self) -> int:
        """Rows that each stream gives to a step."""
        return self.global_rows // self.streams

    @property
    def own_streams(self) -> range:
        """The streams that this rank serves, ascending."""
        return streams_of_rank(self.streams, self.rank, self.world_size)

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> StepPlan:
        """The inverse of `to_json`."""
        skipped = tuple((first, stop) for first, stop in content["skipped"])
        return cls(**{**content, "rows": RowFormat(**content["rows"]), "skipped": skipped})
