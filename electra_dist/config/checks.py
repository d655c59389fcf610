"""What follows from the keys of a configuration, and which combinations cannot be."""

from __future__ import annotations

from electra_dist.config.schema import NETWORKS, Config
from electra_dist.errors import ConfigError


def divisors(number: int) -> list[int]:
    """All divisors of `number`, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def with_derived_defaults(config: Config) -> Config:
    """`config` with the defaults that depend on other keys filled in."""
    rows, length = config.train.global_rows, config.data.row_length
    data = config.data.model_copy(
        update={
            "streams": config.data.streams or max(d for d in divisors(rows) if d <= 256),
            "max_documents_per_row": config.data.max_documents_per_row or max(4, length // 8),
        }
    )
    optim = config.optim
    if optim.schedule == "wsd" and optim.decay_steps is None:
        optim = optim.model_copy(update={"decay_steps": max(1, config.train.steps // 10)})
    return config.model_copy(update={"data": data, "optim": optim})


def contradictions(config: Config) -> list[str]:
    """One sentence for each impossible combination."""
    found = []
    data, train, optim, model = config.data, config.train, config.optim, config.model
    streams = data.streams or 1
    if train.global_rows % streams:
        found.append(
            f"train.global_rows = {train.global_rows} is not divisible by data.streams = {streams}: every stream gives"
            f" the same number of rows to a step; streams may be one of {divisors(train.global_rows)}"
        )
    if train.global_rows % train.micro_rows:
        found.append(
            f"train.global_rows = {train.global_rows} is not divisible by train.micro_rows = {train.micro_rows};"
            f" micro_rows may be one of {divisors(train.global_rows)}"
        )
    if data.row_length > model.max_positions:
        found.append(
            f"data.row_length = {data.row_length} is more than model.max_positions = {model.max_positions}:"
            f" raise model.max_positions to at least {data.row_length}"
        )
    for network in NETWORKS:
        sizes = config.network(network)
        if sizes.hidden_size % sizes.heads:
            found.append(
                f"model.{network}.hidden_size = {sizes.hidden_size} is not divisible by"
                f" model.{network}.heads = {sizes.heads}"
            )
    end = "train.steps" if optim.schedule != "wsd" else "train.steps - optim.decay_steps"
    room = train.steps - (optim.decay_steps or 0 if optim.schedule == "wsd" else 0)
    if optim.warmup_steps > room:
        found.append(f"optim.warmup_steps = {optim.warmup_steps} is more than {end} = {room}")
    return found


def check_world(config: Config, world_size: int) -> None:
    """Raise `ConfigError` when `world_size` ranks cannot train this configuration; the message lists those that can."""
    streams, rows, micro = config.data.streams or 1, config.train.global_rows, config.train.micro_rows
    fits = [w for w in divisors(streams) if (rows // w) % micro == 0]
    if world_size in fits:
        return
    if streams % world_size:
        reason = f"it does not divide data.streams = {streams}"
    else:
        reason = (
            f"its {rows // world_size} rows a rank (train.global_rows = {rows}) are not divisible by"
            f" train.micro_rows = {micro}"
        )
    raise ConfigError(f"world size {world_size}: {reason}; possible world sizes: {fits}")
