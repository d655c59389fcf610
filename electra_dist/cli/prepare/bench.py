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
    from electra_dist.measure.stream import StreamFigures

#: Of blocks in `--cache` at most.
_CACHE_BYTES = 64_000_000_000


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
    _add_data(group)


def _add_data(group: Subparsers) -> None:
    parser = add_command(
        group,
        "data",
        _data_of,
        "Measure the stream of one rank: tokens per second of a core, the first step, going on"
        " from a position, and what a slow storage costs",
        """
        electra-dist bench data shards
        electra-dist bench data shards --ranks 64 --row-length 128 --latency-ms 20 --json

        runs on the CPU and needs no torch
        """,
    )
    parser.add_argument("shards", metavar="SHARDS", help="folder with manifest.json, or its URL")
    parser.add_argument(
        "--ranks", type=int, default=1, metavar="N", help="of which one is measured (default: 1)"
    )
    parser.add_argument(
        "--row-length", type=int, default=512, metavar="L", help="default: %(default)s"
    )
    parser.add_argument(
        "--latency-ms",
        type=float,
        default=10.0,
        metavar="MS",
        help="of each read of a block, simulated (default: %(default)s)",
    )
    parser.add_argument(
        "--trained",
        type=float,
        default=300_000.0,
        metavar="N",
        help="tokens that a rank trains per second (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        metavar="S",
        help="of each measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="what is fetched of shards at a URL"
    )
    add_json(parser)


def _data_of(arguments: argparse.Namespace) -> int:
    from electra_dist.data.shards.manifest import CacheSettings, Manifest
    from electra_dist.measure.stream import measure_stream

    cache = None
    if arguments.cache:
        cache = CacheSettings(arguments.cache, _CACHE_BYTES)
    figures = measure_stream(
        Manifest.load(arguments.shards, cache),
        arguments.ranks,
        arguments.row_length,
        arguments.latency_ms,
        arguments.trained,
        arguments.seconds,
    )
    if arguments.json:
        print_json(figures.to_dict())
    else:
        _print_stream(figures)
    return 0


def _print_stream(figures: StreamFigures) -> None:
    phases = ", ".join(f"{name} {taken:.1f}" for name, taken in figures.nanoseconds.items())
    lines = {
        "stream": f"{figures.tokens_per_cpu_second / 1e6:.2f} million real tokens for a second of"
        f" one core ({figures.tokens_per_second / 1e6:.2f} by the clock), rows of"
        f" {figures.row_length}, {figures.streams_of_rank} streams, rank 0 of {figures.ranks}",
        "processor": f"{phases} nanoseconds for a token",
    }
    for name, waits in (("storage", figures.plain), ("slow storage", figures.slow)):
        lines[name] = (
            f"{waits.latency_ms:g} ms more for a block: first step after {waits.first_seconds:.2f}"
            f" s, after a seek {waits.seek_seconds:.2f} s; waits {waits.stall:.2%} of the time at"
            f" {figures.trained_tokens_per_second:,.0f} tokens/s, {waits.longest_wait:.3f} s at"
            " most"
        )
    lines["bottleneck"] = figures.bottleneck
    for name, value in lines.items():
        print(f"{name + ':':<16}{value}")


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
    from electra_dist.data.sources import check_vocabulary, open_data
    from electra_dist.data.step_plan import StepPlan
    from electra_dist.errors import DataError
    from electra_dist.measure.synthetic import synthetic_steps

    if arguments.synthetic:
        vocab_size = arguments.vocab_size or resolved.model.vocab_size or ELECTRA_VOCABULARY
        return vocab_size, synthetic_steps(resolved, vocab_size, arguments.document_length)
    try:
        data = open_data(resolved)
    except DataError as error:
        raise DataError(f"{error}; or measure on random tokens with --synthetic") from error
    check_vocabulary(resolved, data)
    return data.vocab_size, TrainLoader(StepPlan.of(resolved, 0, 1, sys.maxsize), data)


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
