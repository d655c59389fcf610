"""What follows from the keys of a configuration, and which combinations cannot be."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

from electra_dist.config.fields import NETWORKS, Network
from electra_dist.config.schedule import decay_start
from electra_dist.config.schema import Config, DataConfig, WrittenConfig
from electra_dist.errors import ConfigError

#: Defaults of `data.streams` and `data.open_blocks` at most.
MOST_STREAMS = 1024
MOST_OPEN_BLOCKS = 64


def divisors(number: int) -> list[int]:
    """All divisors of `number`, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def _name_of(folder: str) -> str:
    """The name of a source that has none of its own."""
    parts = [part for part in Path(folder).parts if part not in ("shards", "/", "..")]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", (parts or ["data"])[-1])
    return plain.lstrip("._-")[:128] or "data"


def resolve(written: WrittenConfig) -> Config:
    """`written` with the defaults that follow from other keys filled in."""
    content = written.model_dump()
    data = content["data"]
    if data["streams"] is None:
        data["streams"] = max(d for d in divisors(written.train.global_rows) if d <= MOST_STREAMS)
    if data["open_blocks"] is None:
        rows = -(-written.train.global_rows // data["streams"])
        data["open_blocks"] = min(3 * rows, MOST_OPEN_BLOCKS)
    for source in data["sources"]:
        if source["name"] is None:
            source["name"] = _name_of(source["shards"])
    weighted = any(source["weight"] is not None for source in data["sources"])
    if data["sources"] and not weighted and data["temperature"] is None:
        data["temperature"] = 1.0
    if data["max_documents_per_row"] is None:
        data["max_documents_per_row"] = max(4, written.data.row_length // 8)
    optim = content["optim"]
    if optim["schedule"] == "wsd" and optim["decay_steps"] is None:
        optim["decay_steps"] = max(1, written.train.steps // 10)
    return Config.model_validate(content)


def contradictions(config: Config) -> list[str]:
    """One sentence for each impossible combination."""
    found = _source_contradictions(config.data)
    data = config.data
    train = config.train
    model = config.model
    streams = data.streams
    if train.global_rows % streams:
        found.append(
            f"train.global_rows = {train.global_rows} is not divisible by data.streams = {streams}:"
            " every stream gives the same number of rows to a step; streams may be one of"
            f" {divisors(train.global_rows)}"
        )
    if train.global_rows % train.micro_rows:
        found.append(
            f"train.global_rows = {train.global_rows} is not divisible by train.micro_rows ="
            f" {train.micro_rows}; micro_rows may be one of {divisors(train.global_rows)}"
        )
    if data.row_length > model.max_positions:
        found.append(
            f"data.row_length = {data.row_length} is more than model.max_positions ="
            f" {model.max_positions}: raise model.max_positions to at least {data.row_length}"
        )
    if train.cuda_graphs and (train.compile is False or train.device == "cpu"):
        found.append(
            "train.cuda_graphs = true needs compiled code on a GPU: train.compile=true,"
            " train.device=cuda"
        )
    for network in NETWORKS:
        if train.cuda_graphs and not config.stage(network).can_replay_graphs:
            found.append(
                f"train.cuda_graphs = true with zero.stage = 3 for the {network}: a graph replays"
                " with the memory that it was recorded with, and stage 3 gathers weights into"
                " other memory each time; set zero.stage=1"
            )
        sizes = config.network(network)
        if sizes.hidden_size % sizes.heads:
            found.append(
                f"model.{network}.hidden_size = {sizes.hidden_size} is not divisible by"
                f" model.{network}.heads = {sizes.heads}"
            )
    for first, stop in data.skip_steps:
        if stop <= first:
            found.append(
                f"data.skip_steps has [{first}, {stop}]: the second number must be larger; it is"
                " not skipped"
            )
    found += _warmup_contradictions(config)
    found += _validation_contradictions(config)
    found += _sharding_contradictions(config)
    found += _communication_contradictions(config)
    return found + _precision_contradictions(config)


def _warmup_contradictions(config: Config) -> list[str]:
    """A warm-up that is longer than what it warms up for."""
    optim = config.optim
    end = "train.steps"
    room = config.train.steps
    if optim.schedule == "wsd":
        end = "train.steps - optim.decay_steps"
        room = decay_start(config.train.steps, optim)
    if optim.warmup_steps <= room:
        return []
    return [f"optim.warmup_steps = {optim.warmup_steps} is more than {end} = {room}"]


def _validation_contradictions(config: Config) -> list[str]:
    """What needs validations, where there are none before the end."""
    if config.validation.every or config.validation.evaluate_every:
        return []
    wanting = {
        f"validation.patience = {config.validation.patience}": config.validation.patience,
        f"checkpoint.keep_best = {config.checkpoint.keep_best}": config.checkpoint.keep_best,
    }
    return [
        f"{key} with validation.every = 0: there is nothing to choose by; set validation.every to"
        " the steps between two validations"
        for key, value in wanting.items()
        if value
    ]


def _source_contradictions(data: DataConfig) -> list[str]:
    """What the sources of data cannot be."""
    if data.shards is None and not data.sources:
        return [
            "key data.shards is missing: give the folder of the shards, or several as data.sources"
        ]
    if data.shards is not None and data.sources:
        return [
            f"data.shards = {data.shards} and data.sources are both set; keep one of them"
            " (data.shards=null or data.sources=[] takes one away)"
        ]
    found = []
    weights = [source.weight for source in data.sources]
    given = [weight for weight in weights if weight is not None]
    if given and len(given) < len(weights):
        found.append(
            f"data.sources: {len(given)} of {len(weights)} sources have a weight; give one to each,"
            " or to none"
        )
    if data.temperature is not None and (given or not data.sources):
        found.append(
            f"data.temperature = {data.temperature} goes with data.sources that have no weight:"
            " it makes the weights from their tokens; remove one of the two"
        )
    names = Counter(source.name for source in data.sources)
    for name, count in names.items():
        if count > 1:
            found.append(
                f"data.sources: {count} sources are called {name}; give each a `name` of its own"
            )
    return found


def _precision_contradictions(config: Config) -> list[str]:
    """Stages and precisions that DeepSpeed cannot combine."""
    return [
        f"zero.stage = 0 with precision.mode = {config.precision_mode(network)} for the {network}:"
        " DeepSpeed has no fp32 gradient accumulation at stage 0; set zero.stage=1 (same result,"
        " less memory) or precision.mode=fp32"
        for network in NETWORKS
        if config.precision_mode(network) != "fp32"
        and not config.stage(network).can_train_in_half_precision
    ]


def _sharding_contradictions(config: Config) -> list[str]:
    """What DeepSpeed cannot offload or partition twice."""
    found = []
    for network in NETWORKS:
        zero = config.sharding(network)
        stage = config.stage(network)
        optimizer, parameters = (
            _zero_key(config, network, f"offload_{kind}") for kind in ("optimizer", "parameters")
        )
        asked = f"{_zero_key(config, network, 'stage')} = {stage.number}"
        if zero.offload_optimizer and not stage.can_offload_optimizer:
            found.append(
                f"{optimizer} = true with {asked} for the {network}: DeepSpeed offloads only the"
                " optimizer state that it shares out, and stage 0 shares out none; set"
                f" zero.{network}.stage=1 (2, 3), or zero.{network}.offload_optimizer=false"
            )
        if zero.offload_parameters and not stage.can_offload_parameters:
            found.append(
                f"{parameters} = true with {asked} for the {network}: below stage 3 the weights are"
                f" whole on every GPU; set zero.{network}.stage=3, or"
                f" zero.{network}.offload_parameters=false (offload_optimizer alone works at stages"
                " 1 and 2)"
            )
        elif zero.offload_parameters and not zero.offload_optimizer:
            found.append(
                f"{parameters} = true with {optimizer} = false for the {network}: the optimizer"
                " state is 12 bytes a parameter and goes first, the weights are 2 or 4; set"
                f" zero.{network}.offload_optimizer=true as well"
            )
        if zero.offload_parameters and stage.can_partition_twice and zero.hpz_partition_size:
            found.append(
                f"zero.hpz_partition_size = {zero.hpz_partition_size} with {parameters} = true for"
                f" the {network}: the second copy of the weights would lie in CPU memory, allocated"
                " anew in every step; keep one of them"
            )
    partitioned = any(config.stage(network).can_partition_twice for network in NETWORKS)
    if config.zero.hpz_partition_size and not partitioned:
        found.append(
            f"zero.hpz_partition_size = {config.zero.hpz_partition_size} with no network at stage"
            " 3: only stage 3 partitions weights; set zero.stage=3, or"
            " zero.hpz_partition_size=null"
        )
    return found


def _communication_contradictions(config: Config) -> list[str]:
    """Gradients in bf16 between the ranks, where the backward makes more exact ones."""
    asked = config.zero.communication_data_type
    modes = {network: config.precision_mode(network) for network in NETWORKS}
    return [
        f"zero.communication_data_type = {asked} with precision.mode = {mode} for the {network}:"
        f" gradients that were computed in {mode} would lose digits on the way; set"
        " precision.mode=bf16, whose gradients are bf16 anyway, or"
        " zero.communication_data_type=fp32"
        for network, mode in modes.items()
        if asked == "bf16" and mode != "bf16"
    ]


def _zero_key(config: Config, network: Network, name: str) -> str:
    """The key that `network` takes `name` from: its own where it is set."""
    own = getattr(getattr(config.zero, network), name)
    if own is None:
        return f"zero.{name}"
    return f"zero.{network}.{name}"


def check_world(config: Config, world_size: int, ranks_per_node: int | None = None) -> None:
    """Raise `ConfigError` when `world_size` ranks cannot train this configuration; the message
    lists those that can.

    `ranks_per_node`, where it is known, is what the groups of `zero.hpz_partition_size` must fit.
    """
    _check_rows(config, world_size)
    if any(config.hpz_partition_size(network, world_size) for network in NETWORKS):
        _check_hpz(config.zero.hpz_partition_size or 0, world_size, ranks_per_node)


def idle_rows(config: Config, world_size: int) -> str:
    """A sentence about the empty rows of `world_size` ranks; nothing where there are none."""
    idle = config.idle_share(world_size)
    if not idle:
        return ""
    rows = config.train.global_rows // config.data.streams
    most = rows * -(-config.data.streams // world_size)
    return (
        f"{idle:.1%} of the rows of a step are empty: {world_size} ranks share"
        f" {config.data.streams} streams (data.streams), so a rank has up to {most} rows, in"
        f" micro-batches of {config.train.micro_rows} (train.micro_rows); without empty rows:"
        f" {_busy_worlds(config)} ranks"
    )


def _check_hpz(size: int, world_size: int, ranks_per_node: int | None) -> None:
    fits = [d for d in divisors(world_size) if 1 < d < world_size]
    if world_size % size:
        raise ConfigError(
            f"zero.hpz_partition_size = {size}: it does not divide the world size {world_size};"
            " possible: "
            + (
                f"{fits}, normally the ranks of a node"
                if fits
                else "none, set zero.hpz_partition_size=null"
            )
        )
    if ranks_per_node and ranks_per_node % size and size % ranks_per_node:
        fits = [d for d in fits if not (ranks_per_node % d and d % ranks_per_node)]
        raise ConfigError(
            f"zero.hpz_partition_size = {size}: with {ranks_per_node} ranks a node a group would"
            " lie partly on another"
            " node; possible: " + (f"{fits}" if fits else "none, set zero.hpz_partition_size=null")
        )


def _check_rows(config: Config, world_size: int) -> None:
    streams = config.data.streams
    if not 1 <= world_size <= streams:
        raise ConfigError(
            f"world size {world_size}: there are {streams} streams (data.streams), and each rank"
            f" serves at least one; possible world sizes: 1 to {streams}; without idle rows:"
            f" {_busy_worlds(config)}"
        )


def _busy_worlds(config: Config) -> list[int]:
    """World sizes without empty rows."""
    return [d for d in divisors(config.data.streams) if not config.idle_share(d)]
