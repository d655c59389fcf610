"""What a reader wants to know of a run without its data, its machines and torch.

Comes in: the configuration, the open data, and the machines of a start. Goes out: `About`,
an entry of run.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from electra_dist.config import Config
from electra_dist.data.sources import RunData
from electra_dist.errors import UserError
from electra_dist.plan import parameters, plan_run, recognise
from electra_dist.runs.facts import About


@dataclass(frozen=True)
class Machines:
    """Where a start computes.

    nodes   machines of its ranks
    device  of rank 0, as its maker names it
    job_id  of Slurm; empty outside
    """

    nodes: int = 0
    device: str = ""
    job_id: str = ""


def about_run(config: Config, data: RunData, world_size: int, machines: Machines) -> About:
    """The facts of a run whose newest start has `world_size` ranks on `machines`."""
    count = parameters(config, data.vocab_size)
    entropy = None
    if data.token_counts.any():
        entropy = data.unigram_entropy()
    return About(
        parameters=count.total,
        generator_parameters=count.generator,
        discriminator_parameters=count.discriminator,
        vocab_size=data.vocab_size,
        tokenizer=data.tokenizer_fingerprint,
        corpus_tokens=data.tokens,
        unigram_entropy=entropy,
        promised_tokens_per_s=promised_speed(config, data, world_size, machines),
    )


def promised_speed(
    config: Config, data: RunData, world_size: int, machines: Machines
) -> float | None:
    """Tokens per second that the plan gives for these machines.

    None for a device without a data sheet here (a CPU too), and for nodes of unequal size.
    """
    kind = recognise(machines.device)
    if kind is None or machines.nodes < 1 or world_size % machines.nodes:
        return None
    per_node = world_size // machines.nodes
    try:
        plan = plan_run(
            config,
            data.vocab_size,
            machines.nodes,
            per_node,
            kind.name,
            document_length=data.mean_document,
        )
    except UserError:  # the plan takes fewer worlds than training does
        return None
    return plan.configured.tokens_per_s
