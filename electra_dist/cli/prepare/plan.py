"""`electra-dist plan`: what a run will cost, before it starts; needs no torch and no GPU."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_config,
    add_json,
    console,
    print_json,
)
from electra_dist.console import human_bytes, human_seconds

if TYPE_CHECKING:
    from electra_dist.config import Config
    from electra_dist.plan import Fit, Plan, StagePlan

#: The published vocabulary, for a configuration whose shards are not there yet.


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "plan",
        _plan,
        "Say what a run will cost: parameters, memory, speed, days, network, for every ZeRO stage",
        """
        electra-dist plan configs/base.yaml train.micro_rows=8 --nodes 4 --gpu h100
        electra-dist plan configs/large.yaml --gpus-per-node 8 --gpu a100 --utilisation 0.4
        electra-dist plan configs/xl.yaml zero.hpz_partition_size=8 --nodes 4 --gpu h100
        electra-dist plan configs/xl.yaml zero.offload_optimizer=true --gpu a100-40gb
        electra-dist plan configs/base.yaml --gpus-per-node 8 --gpu h200 --fit
        electra-dist plan configs/quickstart.yaml --gpus-per-node 2 --gpu cpu --json

        speeds follow from an assumed utilisation; `electra-dist bench step` measures them
        """,
        prints=True,
    )
    add_config(parser)
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--gpus-per-node", type=int, default=1, metavar="G", help="default: %(default)s"
    )
    parser.add_argument(
        "--gpu", required=True, metavar="KIND", help="h200, h100, a100, l40s, v100, ..., cpu"
    )
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GB", help="in place of the data sheet's"
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="TFLOPS",
        help="matrix-product rate of one GPU, in place of the data sheet's",
    )
    parser.add_argument(
        "--utilisation", type=float, metavar="F", help="fraction of the rate reached (default: 0.3)"
    )
    parser.add_argument(
        "--network", type=float, metavar="GBIT", help="Gbit/s a GPU between nodes (default: 200)"
    )
    parser.add_argument(
        "--host-memory",
        type=float,
        metavar="GB",
        help="CPU memory of a node, for what is offloaded or saved",
    )
    parser.add_argument("--vocab-size", type=int, metavar="N", help="default: that of the shards")
    parser.add_argument(
        "--document-length", type=int, metavar="N", help="default: the mean of the shards"
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="also propose micro rows, ZeRO stage and checkpointing for these GPUs",
    )
    add_json(parser)


def _plan(arguments: argparse.Namespace) -> int:
    from electra_dist import config
    from electra_dist.plan import NETWORK_GBIT, UTILISATION, costs_of, fits, plan_of

    resolved = config.load(arguments.config, arguments.overrides)
    vocab_size, document_length, notes = _data(resolved, arguments)
    if arguments.fit:
        resolved, changed = _divisible(resolved, arguments.nodes * arguments.gpus_per_node)
        notes += changed
    if arguments.gpu_memory:
        memory = arguments.gpu_memory * 1e9
    else:
        memory = None
    if memory is None and arguments.gpu.lower() == "cpu":
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / max(
            arguments.gpus_per_node, 1
        )
        notes.append("memory: this machine's, shared by the processes of a node")
    costs = costs_of(
        resolved,
        vocab_size,
        arguments.nodes,
        arguments.gpus_per_node,
        arguments.gpu,
        document_length=document_length,
        utilisation=UTILISATION if arguments.utilisation is None else arguments.utilisation,
        rate=arguments.rate * 1e12 if arguments.rate else None,
        memory_bytes=memory,
        network_gbit=NETWORK_GBIT if arguments.network is None else arguments.network,
        host_memory_bytes=arguments.host_memory * 1e9 if arguments.host_memory else None,
    )
    plan = plan_of(costs)
    if arguments.fit:
        found = fits(costs)
    else:
        found = []
    if arguments.json:
        if arguments.fit:
            fitting = {"fits": [fit.to_dict() for fit in found]}
        else:
            fitting = {}
        print_json(plan.to_dict() | fitting | {"notes": notes})
        return 0
    _print(plan, notes)
    if arguments.fit:
        _print_fits(found)
    return 0


def _divisible(resolved: Config, world_size: int) -> tuple[Config, list[str]]:
    """The configuration with micro rows that a rank's rows are divisible by:
    what `--fit` is asked for.
    """
    train = resolved.train
    rows = train.global_rows // max(world_size, 1)
    micro_rows = math.gcd(rows, train.micro_rows)
    if rows < 1 or train.global_rows % world_size or micro_rows == train.micro_rows:
        return resolved, []
    note = (
        f"train.micro_rows={micro_rows} in place of {train.micro_rows}: a rank has {rows} rows"
        " a step"
    )
    return resolved.model_copy(
        update={"train": train.model_copy(update={"micro_rows": micro_rows})}
    ), [note]


def _data(resolved: Config, arguments: argparse.Namespace) -> tuple[int, int | None, list[str]]:
    """Vocabulary, mean length of a document with its special tokens, and where they come from."""
    from electra_dist.config import ELECTRA_VOCABULARY
    from electra_dist.data.shards.manifest import MANIFEST_FILE, Manifest
    from electra_dist.data.shards.stores.remote import is_remote

    vocab_size = arguments.vocab_size or resolved.model.vocab_size
    document_length = arguments.document_length
    notes = []
    shards = resolved.data.shards
    if is_remote(shards) or (Path(shards) / MANIFEST_FILE).exists():
        facts = Manifest.of_run(resolved).facts
        vocab_size = vocab_size or facts.vocab_size
        if document_length is None and facts.train.documents:
            document_length = facts.train.tokens // facts.train.documents + 2
    elif vocab_size is None:
        vocab_size = ELECTRA_VOCABULARY
        notes.append(
            f"{resolved.data.shards} holds no shards yet: a vocabulary of {vocab_size:,} assumed,"
            " and documents that fill their rows; set --vocab-size and --document-length"
        )
    return vocab_size or ELECTRA_VOCABULARY, document_length, notes


def _print(plan: Plan, notes: list[str]) -> None:
    count = plan.parameters
    device = plan.device
    lines = {
        "machines": f"{plan.nodes} x {plan.gpus_per_node} {device.name}"
        + (f", {plan.memory_bytes / 1e9:.0f} GB each" if plan.memory_bytes else ""),
        "parameters": f"{count.total:,} (generator {count.generator:,} with the embeddings,"
        " discriminator"
        f" {count.discriminator:,})",
        "FLOPs a token": f"{plan.flops_per_token:.4g} (forward and backward, documents of"
        f" {plan.document_length})",
        "tokens a step": f"{plan.step_tokens:,} (accumulation {plan.accumulation})",
        "speed assumed": f"{plan.utilisation:.0%} of {plan.rate / 1e12:,.4g} TFLOP/s a GPU"
        + (f", {plan.network_gbit:g} Gbit/s a GPU between nodes" if plan.nodes > 1 else ""),
        "in all": f"{plan.configured.utilisation:.0%} of it as configured, with what the host and"
        " the network add",
        "checkpoint": f"{human_bytes(plan.checkpoint_bytes)}, {human_bytes(plan.checkpoints_bytes)}"
        f" for those"
        " kept" + _saving(plan),
    }
    for name, value in lines.items():
        print(f"{name + ':':<16}{value}")
    if any(stage.configured for stage in plan.stages):
        stages = plan.stages
    else:
        stages = (*plan.stages, plan.configured)
    console().print(_table(stages, plan.nodes))
    for note in (*notes, *plan.advice):
        print(f"note: {note}")
    for warning in plan.warnings:
        print(f"warning: {warning}")


def _saving(plan: Plan) -> str:
    """The memory that saving takes."""
    if not plan.configured.saving_bytes:
        return ""
    return (
        f"; {human_bytes(plan.configured.saving_bytes)} of CPU memory a node to save in the"
        f" background"
    )


def _table(stages: tuple[StagePlan, ...], nodes: int) -> object:
    from rich.table import Table

    table = Table(
        "ZeRO", title="memory of one GPU at the peak; * as configured, - cannot run", padding=(0, 0)
    )
    for heading in (
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "buffers",
        "peak",
        "reserved",
        "fits",
    ):
        table.add_column(heading, justify="right")
    offloads = any(stage.host_bytes for stage in stages)
    more = (["host/node"] if offloads else []) + ["sent/step"] + (["to nodes"] if nodes > 1 else [])
    for heading in (*more, "tokens/s", "time"):
        table.add_column(heading, justify="right")
    for stage in stages:
        memory = stage.memory
        parts = (
            memory.weights,
            memory.gradients,
            memory.optimizer,
            memory.activations,
            memory.buffers,
            memory.peak,
        )
        table.add_row(
            f"{stage.stage}{' *' if stage.configured else ''}{' -' if stage.problem else ''}",
            *(human_bytes(part) for part in (*parts, stage.needed_bytes)),
            {True: "yes", False: "NO", None: "?"}[stage.fits],
            *([human_bytes(stage.host_bytes)] if offloads else []),
            human_bytes(stage.network_bytes),
            *([human_bytes(stage.between_bytes)] if nodes > 1 else []),
            f"{stage.tokens_per_s / 1e3:,.1f}k",
            human_seconds(stage.days * 86400),
        )
    return table


def _print_fits(found: list[Fit]) -> None:
    """The fastest of them, each stage and way of checkpointing once,
    and what to set for the first.
    """
    from rich.table import Table

    best: dict[tuple[int, bool], Fit] = {}
    for fit in found:
        best.setdefault((fit.stage, fit.activation_checkpointing), fit)
    table = Table("ZeRO", title="what fits: the fastest of each kind, estimated", padding=(0, 0))
    for heading in ("recomputed", "rows at a time", "reserved", "tokens/s"):
        table.add_column(heading, justify="right")
    for fit in best.values():
        if fit.activation_checkpointing:
            recomputed = "layers"
        else:
            recomputed = "nothing"
        row = (
            str(fit.micro_rows),
            human_bytes(fit.needed_bytes),
            f"{fit.tokens_per_s / 1e3:,.1f}k",
        )
        table.add_row(str(fit.stage), recomputed, *row)
    if not best:
        print(
            "nothing fits, not even one row at a time with layers recomputed; take more or larger"
            " GPUs, or offload"
        )
        return
    console().print(table)
    print(f"fastest: {' '.join(found[0].overrides)}")
