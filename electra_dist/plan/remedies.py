"""What a plan says in words: what will not fit and what to change, and what would be faster.

Comes in: `Costs` and the plans of its stages. Goes out: sentences.
"""

from __future__ import annotations

from dataclasses import replace

from electra_dist.config import NETWORKS, STAGES, Config, divisors
from electra_dist.plan.costs import SHARING, Costs, StagePlan
from electra_dist.plan.sizes import parameters

#: Below this size sharding the weights buys nothing that stage 1 does not.
_WORTH_SHARDING = 1e9


def warnings(costs: Costs, configured: StagePlan, stages: tuple[StagePlan, ...]) -> list[str]:
    """What cannot run or does not fit."""
    found = []
    if configured.problem:
        found.append(f"cannot run as configured: {configured.problem}")
    if costs.memory_bytes is not None and configured.needed_bytes > costs.memory_bytes:
        found.append(
            f"will not fit: {configured.needed_bytes / 1e9:.1f} GB needed (peak of tensors"
            f" {configured.memory.peak / 1e9:.1f} GB, the rest reserve), {costs.device.name} has"
            f" {costs.memory_bytes / 1e9:.0f} GB; " + _remedy(costs, stages)
        )
    host = configured.host_bytes + (configured.saving_bytes if costs.kind == "cuda" else 0.0)
    if costs.host_memory_bytes is not None and host > costs.host_memory_bytes:
        found.append(
            f"will not fit: {host / 1e9:.1f} GB of CPU memory a node needed for what is offloaded"
            f" ({configured.host_bytes / 1e9:.1f} GB) and for saving in the background"
            f" ({configured.saving_bytes / 1e9:.1f} GB), there are"
            f" {costs.host_memory_bytes / 1e9:.0f} GB; offload less, set"
            " checkpoint.asynchronous=false, or take more nodes"
        )
    return found


def advice(costs: Costs, configured: StagePlan, stages: tuple[StagePlan, ...]) -> list[str]:
    """Stage 3 where it costs time and saves memory that nobody needs."""
    first = stages[1]
    count = parameters(costs.config, costs.vocab_size).total
    if not STAGES[configured.stage].shares_weights or count >= _WORTH_SHARDING:
        return []
    if first.problem or not first.fits:
        return []
    if configured.step_seconds < 1.05 * first.step_seconds:
        return []
    return [
        "zero.stage=1 fits too, and is estimated"
        f" {configured.step_seconds / first.step_seconds:.1f} times as fast:"
        f" {first.step_seconds * 1e3:,.0f} ms a step instead of"
        f" {configured.step_seconds * 1e3:,.0f}; stage 3 gathers and sends in every micro-batch"
    ]


def _remedy(costs: Costs, stages: tuple[StagePlan, ...]) -> str:
    """What to change so that it fits: a higher stage, checkpointing,
    fewer rows at once, offload: in order of price.
    """
    for planned in stages:
        if planned.fits and not planned.problem:
            return f"zero.stage={planned.stage} fits"
    config = costs.config
    thrifty = config.model_copy(
        update={"train": config.train.model_copy(update={"activation_checkpointing": True})}
    )
    rows = config.train.global_rows // costs.world
    tries = [("train.activation_checkpointing=true", thrifty)]
    for micro in sorted((m for m in divisors(rows) if m < config.train.micro_rows), reverse=True):
        smaller = config.train.model_copy(update={"micro_rows": micro})
        tries.append((f"train.micro_rows={micro}", config.model_copy(update={"train": smaller})))
    tries += _offload_tries([("", config), tries[0], tries[-1]])
    for change, changed in tries:
        for stage in SHARING:
            found = replace(costs, config=changed).stage(dict.fromkeys(NETWORKS, stage))
            if found.needed_bytes <= (costs.memory_bytes or 0.0) and found.fits is not False:
                if found.host_bytes:
                    host = f", with {found.host_bytes / 1e9:.0f} GB of CPU memory a node"
                else:
                    host = ""
                return f"{change} with zero.stage={stage.number} fits{host}"
    return (
        "not even one row a micro-batch at stage 3 with the optimizer offloaded fits; take more"
        " or larger GPUs"
    )


def _offload_tries(tries: list[tuple[str, Config]]) -> list[tuple[str, Config]]:
    """The same changes with the optimizer in CPU memory."""
    offloaded = []
    for change, config in tries:
        zero = config.zero.model_copy(update={"offload_optimizer": True})
        offloaded.append(
            (
                f"{change} zero.offload_optimizer=true".strip(),
                config.model_copy(update={"zero": zero}),
            )
        )
    return offloaded
