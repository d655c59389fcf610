"""What the loader takes from the main thread: a host-bound loop alone, and while steps come at a
given rate.

    python benchmarks/loader_share.py --shards shards --json loader_share.json

The loop is pure Python and knows no device, as the part of a training step that starts the work of
a GPU: it counts how far it comes, and takes the next step whenever one is due at
`--tokens-per-second`. Its speed beside its speed alone is the `ratio`: 1.0 for a loader that costs
nothing. Three ways are timed in turn, in rounds, because machines are noisy: alone; fed by
`TrainLoader`, whose process makes the steps; fed by the same steps made in a thread of this
process, which shares the interpreter's lock with the loop. The figure is the median of the ratios
of a round, with its quartiles. Of the process the same is said by the processor time of the loop's
thread alone, which other work on the machine changes less: it holds all that taking a step costs,
but for waiting.

Printed beside it: what the loop waits and works for a step of `TrainLoader`, the processor time and
memory of its process, the seconds from its start to the first step, and the same of a `StepSource`
in this process. The loop and the process need a core each: a round in which other processes took
more of the machine is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from electra_dist import config as configuration
from electra_dist.batch import Step
from electra_dist.config import Config
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.sources import RunData, open_data
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.steps import StepSource

#: A round is left out where other processes took more than this share of a core;
#: so many times the rounds at most.
QUIET = 0.04
LONGEST = 3
ALONE = "alone"
PROCESS = "process"
THREAD = "thread"


def work(count: int) -> int:
    """Something that an interpreter does: calls, attributes, small objects."""
    found: dict[int, tuple[int, str]] = {}
    for number in range(count):
        found[number & 63] = (number, str(number))
    return len(found)


class ThreadLoader:
    """The steps of a source, made ahead by a thread of this process, which ends with it."""

    def __init__(self, plan: StepPlan, data: RunData) -> None:
        self._source = StepSource(plan, data)
        self._ready: queue.Queue[Step] = queue.Queue(plan.prefetch_steps)
        threading.Thread(target=self._make, daemon=True).start()

    def _make(self) -> None:
        for step in self._source:
            self._ready.put(step)

    def __next__(self) -> Step:
        return self._ready.get()


class Lap(NamedTuple):
    """How fast the loop was: work done a second of the clock, and of its own processor time;
    seconds of one `take`.
    """

    by_clock: float
    by_processor: float
    taking: float


def lap(take: Callable[[], object], seconds: float, every: float) -> Lap:
    """Loop for so many seconds, with a `take` every so many."""
    done = 0
    taken = 0
    taking = 0.0
    begin = time.perf_counter()
    used = time.thread_time()
    now = begin
    due = begin + every
    while now < begin + seconds:
        if now >= due:
            take()
            after = time.perf_counter()
            taken = taken + 1
            taking = taking + after - now
            due = due + every
            now = after
            continue
        work(100)
        done += 1
        now = time.perf_counter()
    return Lap(done / (now - begin), done / (time.thread_time() - used), taking / max(taken, 1))


def configure(arguments: argparse.Namespace, row_length: int) -> Config:
    return configuration.build(
        {
            "data": {"shards": str(arguments.shards), "row_length": row_length},
            "model": {"preset": "tiny", "max_positions": row_length},
            "train": {
                "steps": 1,
                "global_rows": arguments.rows,
                "micro_rows": arguments.micro_rows,
            },
            "optim": {"warmup_steps": 0},
        }
    )


def measure(arguments: argparse.Namespace, row_length: int) -> dict[str, Any]:
    """The ratios of one row length."""
    config = configure(arguments, row_length)
    plan = StepPlan.of(config, 0, 1, sys.maxsize)
    data = open_data(config)
    every = arguments.rows * row_length / arguments.tokens_per_second
    thread = ThreadLoader(plan, data)
    with TrainLoader(plan, data) as loader:
        ways: dict[str, Callable[[], object]] = {
            ALONE: lambda: None,
            PROCESS: loader.__next__,
            THREAD: thread.__next__,
        }
        for take in ways.values():
            # past the first blocks of all streams, which are read for the first step
            for _ in range(8):
                take()
        laps: dict[str, list[Lap]] = {way: [] for way in ways}
        worked = -processor_seconds(loader.pid)
        disturbed = 0
        while len(laps[ALONE]) < arguments.rounds:
            others = seconds_of_others(loader.pid)
            found = {}
            for way, take in ways.items():
                time.sleep(0.05)  # for what the last way has still to make
                found[way] = lap(take, arguments.seconds, every)
            others = seconds_of_others(loader.pid) - others
            if (
                others > QUIET * len(ways) * arguments.seconds
                and disturbed < LONGEST * arguments.rounds
            ):
                disturbed += 1
                continue
            for way, one in found.items():
                laps[way].append(one)
        worked += processor_seconds(loader.pid)
        memory = peak_memory(loader.pid)
    ratios = {
        way: [a.by_clock / b.by_clock for a, b in zip(laps[way], laps[ALONE], strict=True)]
        for way in (PROCESS, THREAD)
    }
    own = [a.by_processor / b.by_processor for a, b in zip(laps[PROCESS], laps[ALONE], strict=True)]
    return {
        "row_length": row_length,
        "steps_per_s": 1 / every,
        "ratio": {way: statistics.median(found) for way, found in ratios.items()},
        "quartiles": {way: statistics.quantiles(found, n=4)[::2] for way, found in ratios.items()},
        "ratio_by_processor_time": statistics.median(own),
        "seconds_of_the_loop_a_step": statistics.median(one.taking for one in laps[PROCESS]),
        "share_of_a_core": worked / ((arguments.rounds + disturbed) * arguments.seconds),
        "rounds_left_out": disturbed,
        "peak_bytes_of_the_process": memory,
        **starts(plan, data),
    }


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far; needs /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds_of_others(pid: int) -> float:
    """Processor time of the machine so far that is neither this process's nor that of `pid`,
    stolen time included.
    """
    user, nice, system, _, _, interrupts, soft, stolen, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    everything = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return everything - sum(os.times()[:2]) - processor_seconds(pid)


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process had, what it shares with others included;
    needs /proc.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def starts(plan: StepPlan, data: RunData, rounds: int = 5) -> dict[str, float]:
    """Seconds from nothing to the first step, with a process and without."""
    process = []
    here = []
    for _ in range(rounds):
        begin = time.perf_counter()
        with TrainLoader(plan, data) as loader:
            next(loader)
            process.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        next(StepSource(plan, data))
        here.append(time.perf_counter() - begin)
    return {
        "seconds_to_first_step": statistics.median(process),
        "without_a_process": statistics.median(here),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="folder written by `data build`")
    parser.add_argument("--row-lengths", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--tokens-per-second", type=float, default=2e6)
    parser.add_argument("--rows", type=int, default=256, help="of a step of this rank")
    parser.add_argument("--micro-rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each way in each round")
    parser.add_argument(
        "--goal", type=float, default=0.97, help="the least ratio that is a success (exit status 0)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    settings = {
        key: value for key, value in vars(arguments).items() if key not in ("json", "shards")
    }
    figures: dict[str, Any] = {"settings": settings, "cases": []}
    for row_length in arguments.row_lengths:
        found = measure(arguments, row_length)
        figures["cases"].append(found)
        quartiles = {
            way: f"{low:.3f} to {high:.3f}" for way, (low, high) in found["quartiles"].items()
        }
        print(
            f"rows of {row_length}, {found['steps_per_s']:.1f} steps/s: main thread at"
            f" {found['ratio'][PROCESS]:.3f} of its speed alone ({quartiles[PROCESS]}; by its own"
            f" processor time {found['ratio_by_processor_time']:.3f}), with a thread"
            f" {found['ratio'][THREAD]:.3f} ({quartiles[THREAD]}); {found['rounds_left_out']}"
            " rounds left out\n"
            f"    {1e3 * found['seconds_of_the_loop_a_step']:.2f} ms of the loop a step,"
            f" {found['share_of_a_core']:.0%} of a core and"
            f" {found['peak_bytes_of_the_process'] / 1e6:.0f} MB for the process; first step after"
            f" {found['seconds_to_first_step']:.2f} s, without a process"
            f" {found['without_a_process']:.2f} s",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if all(case["ratio"][PROCESS] >= arguments.goal for case in figures["cases"]):
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
