"""What saving costs: training waits for the disk, or only for a copy to memory while the rest
happens behind it.

    python benchmarks/checkpoint_stall.py --folder /scratch/me --json stall.json      one process,
                                                                                      preset small
    python benchmarks/checkpoint_stall.py --folder /scratch/me --processes 2 --preset base

Trains random rows in rounds, each of them three windows of `--steps` steps: without saving, with
one save in the background after the first step, and with one that is waited for. `waited` is the
time that the training thread spent in the saver, the `speed/checkpoint_stall` of metrics.jsonl;
`slower` is by how much the whole window took longer than the one without saving, which counts what
the writing takes from the cores and the bus too. Both are given as a fraction of the time between
two saves at `--every` steps, by default the configuration's own. Medians of the rounds. The folder
should lie on the file system that a run would write to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from attempts import write_json

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.batch import Step
from electra_dist.checkpoint.saving import Saver
from electra_dist.config import Config
from electra_dist.measure.bench import device_name
from electra_dist.measure.synthetic import synthetic_steps
from electra_dist.model.networks import build_networks
from electra_dist.parallel.collectives import any_rank, barrier
from electra_dist.parallel.group import close_group, leave, open_group
from electra_dist.parallel.world import World, choose_device, detect
from electra_dist.runs.directory import RunDir
from electra_dist.train.step import train_step
from electra_dist.zero.engines import Engines, build_engines
from launcher.local import launch_local

BACKGROUND = "in the background"
WAITING = "waited for"
WITHOUT = "without"
WARM_UP_STEPS = 3


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        required=True,
        help="where the checkpoints are written, and removed again",
    )
    parser.add_argument("--preset", default="small")
    parser.add_argument("--vocab-size", type=int, default=30522)
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=128, help="rows of a step, over all processes")
    parser.add_argument("--micro-rows", type=int, default=32)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--zero-stage", type=int, default=3)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--steps", type=int, default=20, help="of a window; the writing must end within it"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--every", type=int, help="steps between two saves (default: checkpoint.every)"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def configure(arguments: argparse.Namespace, world: World) -> Config:
    cuda = world.device.type == "cuda"
    tree: dict[str, Any] = {
        "data": {"shards": "none", "row_length": arguments.row_length, "streams": world.world_size},
        "model": {"preset": arguments.preset, "max_positions": max(512, arguments.row_length)},
        "train": {
            "steps": 10**6,
            "global_rows": arguments.rows,
            "micro_rows": arguments.micro_rows,
        },
        "optim": {"lr": 1e-4, "warmup_steps": 0},
        "zero": {"stage": arguments.zero_stage},
        "precision": {"mode": "bf16" if cuda else "fp32"},
    }
    tree["train"]["device"] = world.device.type
    if arguments.every:
        tree["checkpoint"] = {"every": arguments.every}
    return configuration.build(tree, "benchmark")


def own_steps(config: Config, vocab_size: int, world: World) -> Iterator[Step]:
    """Random steps, this rank's rows of them."""
    share = config.train.model_copy(
        update={"global_rows": config.train.global_rows // world.world_size}
    )
    return synthetic_steps(config.model_copy(update={"train": share}), vocab_size)


class Bench:
    """Engines, steps and the savers of one run."""

    def __init__(self, arguments: argparse.Namespace, world: World, folder: Path) -> None:
        self.config = configure(arguments, world)
        self.world = world
        self.steps = arguments.steps
        networks = build_networks(self.config, arguments.vocab_size, world.device, 1)
        self.engines: Engines = build_engines(self.config, *networks, world)
        self.data = own_steps(self.config, arguments.vocab_size, world)
        settings = self.config.checkpoint.model_copy(update={"keep": 1})
        self.savers = {
            kind: Saver(
                RunDir(folder / kind.replace(" ", "-")),
                self.engines,
                world,
                settings.model_copy(update={"asynchronous": kind == BACKGROUND}),
            )
            for kind in (BACKGROUND, WAITING)
        }
        self.saved = 0
        for _ in range(WARM_UP_STEPS):
            self.train()
        for saver in self.savers.values():  # the memory for the copies is made once in a run
            self.save(saver)
            saver.finish()

    def train(self) -> None:
        train_step(self.engines, next(self.data), self.config, 1.0)

    def save(self, saver: Saver) -> None:
        self.saved += 1
        saver.save(self.saved, {"step": self.saved})

    def window(self, kind: str) -> tuple[float, float]:
        """Seconds of a window, and those that its training thread spent in the saver."""
        saver = self.savers.get(kind)
        self.settle()
        start = time.perf_counter()
        if saver:
            saver.stall()
        for number in range(self.steps):
            self.train()
            if saver and number == 0:
                self.save(saver)
            elif saver:
                saver.poll(any_rank(saver.is_writing, self.world))
        if saver:
            saver.finish()
        self.settle()
        seconds = time.perf_counter() - start
        return seconds, saver.stall() * seconds if saver else 0.0

    def settle(self) -> None:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()
        barrier(self.world)


def measure(arguments: argparse.Namespace, world: World, folder: Path) -> dict[str, Any]:
    bench = Bench(arguments, world, folder)
    found: dict[str, list[tuple[float, float]]] = {WITHOUT: [], BACKGROUND: [], WAITING: []}
    for _ in range(arguments.rounds):
        for kind, windows in found.items():
            windows.append(bench.window(kind))
    plain = statistics.median(seconds for seconds, _ in found[WITHOUT])
    between = plain / arguments.steps * bench.config.checkpoint.every
    figures: dict[str, Any] = {
        "device": device_name(world.device),
        "processes": world.world_size,
        "preset": arguments.preset,
        "zero_stage": arguments.zero_stage,
        "parameters": plan.parameters(bench.config, arguments.vocab_size).total,
        "step_seconds": plain / arguments.steps,
        "every": bench.config.checkpoint.every,
        "host_bytes_a_rank": bench.savers[BACKGROUND].host_bytes,
        "checkpoint_bytes": checkpoint_bytes(folder),
    }
    for kind in (BACKGROUND, WAITING):
        waited = statistics.median(waiting for _, waiting in found[kind])
        slower = statistics.median(
            seconds - other
            for (seconds, _), (other, _) in zip(found[kind], found[WITHOUT], strict=True)
        )
        figures[kind] = {
            "waited_seconds": waited,
            "waited_fraction": waited / between,
            "slower_seconds": slower,
            "slower_fraction": slower / between,
        }
    figures["ratio"] = figures[BACKGROUND]["waited_seconds"] / figures[WAITING]["waited_seconds"]
    return figures


def checkpoint_bytes(folder: Path) -> int:
    files = sorted(folder.glob("waited-for/checkpoints/step-*"))[-1].rglob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def report(figures: dict[str, Any]) -> None:
    print(
        f"{figures['preset']}, {figures['parameters']:,} parameters, ZeRO stage"
        f" {figures['zero_stage']}, on {figures['processes']} x {figures['device']}:"
        f" {figures['step_seconds']:.3f} s a step, a checkpoint of"
        f" {figures['checkpoint_bytes'] / 1e6:,.0f} MB every {figures['every']:,} steps"
    )
    for kind in (BACKGROUND, WAITING):
        one = figures[kind]
        print(
            f"{kind:<18} waited {one['waited_seconds']:7.3f} s a save,"
            f" {one['waited_fraction']:8.4%} of the time; slower by {one['slower_seconds']:7.3f} s,"
            f" {one['slower_fraction']:8.4%}"
        )
    print(
        f"waited in the background / waited for: {figures['ratio']:.3f}; CPU memory for the copy on"
        f" each rank: {figures['host_bytes_a_rank'] / 1e6:,.0f} MB"
    )


def main() -> int:
    arguments = parse()
    if arguments.processes > 1 and "RANK" not in os.environ:
        with tempfile.TemporaryDirectory() as logs:
            command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
            return launch_local(command, arguments.processes, Path(logs))
    if arguments.device != "cpu":
        cuda = torch.cuda.device_count()
    else:
        cuda = 0
    world = detect(os.environ, "auto", cuda)
    world = replace(world, device=choose_device(arguments.device, world.local_rank, cuda))
    open_group(world)
    folder = arguments.folder / "checkpoint-stall"
    try:
        figures = measure(arguments, world, folder)
        barrier(world)
        if world.is_main:
            report(figures)
            write_json(arguments.json, figures)
    finally:
        if world.is_main:
            shutil.rmtree(folder, ignore_errors=True)
        close_group()
    return 0


if __name__ == "__main__":
    leave(main())
