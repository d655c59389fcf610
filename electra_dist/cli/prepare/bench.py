"""`electra-dist bench`: measurements on the user's own machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import (
    Subparsers,
    add_command,
    add_config,
    add_group,
    add_json,
    console,
    print_json,
)

if TYPE_CHECKING:
    from electra_dist.batch import Step
    from electra_dist.config import Config
    from electra_dist.measure.bench import StepFigures

#: The published vocabulary, for synthetic rows without `model.vocab_size`.


def add(subparsers: Subparsers) -> None:
    """Register the subcommands."""
    group = add_group(subparsers, "bench", "Measure on this machine")
    parser = add_command(
        group,
        "step",
        _step,
        "Measure the training step of a configuration: tokens a second, utilisation, memory, where"
        " the time goes",
        """
        electra-dist bench step configs/base.yaml
        electra-dist bench step configs/base.yaml model.attention=triton --profile profile
        electra-dist bench step configs/large.yaml --synthetic --json

        one process: train.global_rows are trained in train.micro_rows at a time, so set both to
        what one GPU will do
        """,
    )
    add_config(parser)
    parser.add_argument(
        "--steps", type=int, default=10, metavar="N", help="timed steps (default: %(default)s)"
    )
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write a Chrome trace and a table by operation"
    )
    parser.add_argument(
        "--synthetic", action="store_true", help="random tokens instead of the shards"
    )
    parser.add_argument(
        "--vocab-size", type=int, metavar="N", help="of synthetic rows (default: 30522, ELECTRA's)"
    )
    parser.add_argument(
        "--document-length", type=int, metavar="N", help="of synthetic rows (default: a whole row)"
    )
    add_json(parser)


def _step(arguments: argparse.Namespace) -> int:
    from electra_dist import config

    resolved = config.load(arguments.config, arguments.overrides)
    import torch

    from electra_dist.errors import UserError
    from electra_dist.measure.bench import measure_steps
    from electra_dist.parallel.ending import end_by
    from electra_dist.parallel.group import close_group, leave, open_group
    from electra_dist.parallel.world import detect

    world = detect(os.environ, resolved.train.device, torch.cuda.device_count())
    if world.world_size > 1:
        raise UserError(
            f"bench step measures one process, and this is one of {world.world_size} ranks"
            f" ({world.launcher}); start it without torchrun and with one Slurm task"
        )
    vocab_size, data = _data(resolved, arguments)
    end_by(leave)
    open_group(world)
    try:
        figures = measure_steps(
            resolved, vocab_size, data, world, arguments.steps, arguments.profile
        )
    finally:
        close_group()
    if arguments.json:
        print_json(figures.to_dict())
    else:
        _print(figures)
    return 0


def _data(resolved: Config, arguments: argparse.Namespace) -> tuple[int, Iterator[Step]]:
    """Vocabulary size, and steps from the shards or, where asked for, of random tokens."""
    from electra_dist.config import ELECTRA_VOCABULARY
    from electra_dist.data.loading.loader import TrainLoader
    from electra_dist.data.shards.manifest import Manifest
    from electra_dist.errors import DataError
    from electra_dist.measure.synthetic import synthetic_steps

    if arguments.synthetic:
        vocab_size = arguments.vocab_size or resolved.model.vocab_size or ELECTRA_VOCABULARY
        return vocab_size, synthetic_steps(resolved, vocab_size, arguments.document_length)
    try:
        manifest = Manifest.of_run(resolved)
    except DataError as error:
        raise DataError(f"{error}; or measure on random tokens with --synthetic") from error
    return manifest.vocab_size, TrainLoader(resolved, manifest, 0, 1, steps=sys.maxsize)


def _print(figures: StepFigures) -> None:
    low, high = figures.step_seconds_range
    attention = ", ".join(f"{name} {backend}" for name, backend in figures.attention.items())
    if figures.compiled:
        compiled = "compiled"
    else:
        compiled = "not compiled"
    lines = {
        "device": f"{figures.device}, torch {figures.torch}, {figures.precision}, {compiled}",
        "attention": attention,
        "generator head": figures.head,
        "speed": f"{figures.real_tokens_per_s:,.0f} real tokens/s",
        "step": f"{figures.step_seconds:.4g} s ({low:.4g} to {high:.4g} in {figures.steps} steps)",
        "utilisation": f"{figures.mfu:.1%} of {figures.matrix_product_rate / 1e12:.4g} TFLOP/s, the"
        " matrix-product"
        f" rate measured here warm, {figures.cold_matrix_product_rate / 1e12:.4g} cold"
        f" ({figures.flops_per_token:.4g} FLOPs a token)",
        "peak memory": f"{figures.peak_memory_bytes / 1e6:,.1f} MB of tensors"
        f" (predicted by `electra-dist plan`: {figures.predicted_bytes / 1e6:,.1f})",
    }
    for name, value in lines.items():
        print(f"{name + ':':<16}{value}")
    if figures.memory_at_peak:
        _print_memory(figures)
    if figures.trace:
        print(figures.operations)
        print(f"trace:          {figures.trace} (open it in chrome://tracing or ui.perfetto.dev)")


def _print_memory(figures: StepFigures) -> None:
    from rich.table import Table

    table = Table("made by", title="memory at the peak")
    table.add_column("tensors", justify="right")
    table.add_column("MB", justify="right")
    for held in figures.memory_at_peak:
        table.add_row(held.operations, f"{held.tensors:,}", f"{held.bytes / 1e6:,.1f}")
    console().print(table)
