"""What agreeing in every step costs it: waited for, as a plain all-reduce, or posted before the
step and read after it.

    python benchmarks/agreement.py --json agreement.json                   8 processes on this
                                                                           machine, gloo on loopback
    srun python benchmarks/agreement.py                                    on the hosts of an
                                                                           allocation

A step is a sleep, so that cores and network are free meanwhile as the host is while a GPU computes.
Each round is a window of `--steps` steps of each kind in turn: without agreement, waited for,
posted. What is given is the time that the training thread of rank 0 spends agreeing in a step, the
median over all steps, and by how much the whole step took longer than one without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from attempts import write_json

from electra_dist.parallel.collectives import all_reduce_max, barrier
from electra_dist.parallel.group import close_group, leave, open_group
from electra_dist.parallel.world import World, detect
from electra_dist.train.agreement import Agreement, Call, Said
from launcher.local import launch_local

Kind = Literal["without", "waited for", "posted"]
KINDS: tuple[Kind, ...] = ("without", "waited for", "posted")
WARM_UP_STEPS = 5


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument(
        "--milliseconds", type=float, default=20.0, help="of a step without agreement"
    )
    parser.add_argument("--steps", type=int, default=100, help="of a window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Bench:
    """Steps that agree in one way or another; notes the seconds that each spent on it."""

    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self._seconds = seconds
        self._agreement = Agreement(world)

    def step(self, kind: Kind) -> float:
        """One step; seconds that this thread spent agreeing."""
        said = Said(Call.GO_ON)
        start = time.perf_counter()
        if kind == "waited for":
            all_reduce_max(said.call, self._world)
        elif kind == "posted":
            self._agreement.post(said)
        spent = time.perf_counter() - start

        time.sleep(self._seconds)

        start = time.perf_counter()
        if kind == "posted":
            self._agreement.read(said)
        return spent + time.perf_counter() - start

    def window(self, kind: Kind, steps: int) -> tuple[float, list[float]]:
        """Seconds of a step, and what each spent agreeing."""
        barrier(self._world)
        start = time.perf_counter()
        spent = [self.step(kind) for _ in range(steps)]
        return (time.perf_counter() - start) / steps, spent


def measure(arguments: argparse.Namespace, world: World) -> dict[str, Any]:
    bench = Bench(world, arguments.milliseconds / 1000)
    for kind in KINDS:
        bench.window(kind, WARM_UP_STEPS)
    steps: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    agreeing: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            seconds, spent = bench.window(kind, arguments.steps)
            steps[kind].append(seconds)
            agreeing[kind] += spent
    plain = statistics.median(steps["without"])
    figures: dict[str, Any] = {
        "processes": world.world_size,
        "cores": os.cpu_count(),
        "step_milliseconds": 1000 * plain,
    }
    for kind in KINDS[1:]:
        figures[kind] = {
            "agreeing_milliseconds": 1000 * statistics.median(agreeing[kind]),
            "slower_milliseconds": 1000 * (statistics.median(steps[kind]) - plain),
        }
    return figures


def report(figures: dict[str, Any]) -> None:
    print(
        f"{figures['processes']} processes on {figures['cores']} cores,"
        f" {figures['step_milliseconds']:.2f} ms a step without agreement"
    )
    for kind in KINDS[1:]:
        one = figures[kind]
        print(
            f"{kind:<11} {one['agreeing_milliseconds']:7.3f} ms a step spent agreeing;"
            f" the step is slower by {one['slower_milliseconds']:7.3f} ms"
        )


def main() -> int:
    arguments = parse()
    if "RANK" not in os.environ and "SLURM_STEP_ID" not in os.environ:
        with tempfile.TemporaryDirectory() as logs:
            command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
            return launch_local(command, arguments.processes, Path(logs))
    world = detect(os.environ, "cpu")
    open_group(world)
    try:
        figures = measure(arguments, world)
        barrier(world)
        if world.is_main:
            report(figures)
            write_json(arguments.json, figures)
    finally:
        close_group()
    return 0


if __name__ == "__main__":
    leave(main())
