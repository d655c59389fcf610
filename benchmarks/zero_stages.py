"""Time, memory and network of a step at ZeRO stages 0, 1, 2 and 3 on this machine.

    python benchmarks/zero_stages.py --preset small --processes 2 --json zero.json        CPU, gloo
    python benchmarks/zero_stages.py --preset base --row-length 512 --precision bf16      every GPU of the machine

Each stage runs in fresh processes. `peak` is the live tensor memory of rank 0 above the baseline after imports, `sent`
what a rank sends in a step: every collective is counted with the volume of its ring algorithm, and compared with what
`electra-dist plan` says. A stage that cannot run in this precision is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.config import NETWORKS, Config
from electra_dist.errors import UserError
from electra_dist.model.networks import build_networks
from electra_dist.train.bench import device_name
from electra_dist.train.distributed import detect, initialise, shutdown
from electra_dist.train.engines import build_engines
from electra_dist.train.step import train_step
from electra_dist.train.synthetic import synthetic_steps
from electra_dist.train.tensor_memory import TensorMemory

STAGES = (0, 1, 2, 3)
WARM_UP_STEPS = 2


def configure(arguments: argparse.Namespace, stage: int) -> Config:
    rows = arguments.micro_rows * arguments.accumulation * arguments.processes
    tree = {
        "data": {"shards": "none", "row_length": arguments.row_length, "streams": arguments.processes},
        "model": {"preset": arguments.preset, "max_positions": max(512, arguments.row_length)},
        "train": {
            "steps": 10**6,
            "global_rows": rows,
            "micro_rows": arguments.micro_rows,
            "device": arguments.device,
            "compile": False,
        },
        "optim": {"lr": 1e-4, "warmup_steps": 0},
        "zero": {"stage": stage},
        "precision": {"mode": arguments.precision},
    }
    return configuration.build(tree, "benchmark")


# --- one rank --------------------------------------------------------------------------------------------------------


#: Collective -> (which argument is the whole, times (W - 1) / W of it).
COLLECTIVES: dict[str, tuple[tuple[str, int], int]] = {
    "all_reduce": (("tensor", 0), 2),
    "all_gather_into_tensor": (("output_tensor", 0), 1),
    "_all_gather_base": (("output_tensor", 0), 1),
    "reduce_scatter_tensor": (("input", 1), 1),
    "_reduce_scatter_base": (("input", 1), 1),
    "all_gather": (("tensor_list", 0), 1),
    "broadcast": (("tensor", 0), 1),
    "reduce": (("tensor", 0), 1),
}


class Sent:
    """Bytes that this rank sends in collectives, by the volume of ring algorithms."""

    def __init__(self, world_size: int) -> None:
        self.bytes = 0.0
        self._ring = (world_size - 1) / world_size
        self._depth = 0
        for name, ((keyword, index), times) in COLLECTIVES.items():
            if hasattr(dist, name):
                setattr(dist, name, self._counted(getattr(dist, name), keyword, index, times))

    def _counted(self, function: Callable[..., Any], keyword: str, index: int, times: int) -> Callable[..., Any]:
        def counted(*values: Any, **keywords: Any) -> Any:
            whole = keywords[keyword] if keyword in keywords else values[index]
            tensors = [whole] if isinstance(whole, Tensor) else whole
            if self._depth == 0:  # one collective may call another
                self.bytes += times * self._ring * sum(t.numel() * t.element_size() for t in tensors)
            self._depth += 1
            try:
                return function(*values, **keywords)
            finally:
                self._depth -= 1

        return counted


def rank(arguments: argparse.Namespace) -> None:
    """One rank of one stage: rank 0 writes its figures to `--worker`."""
    torch.set_num_threads(arguments.threads)
    config = configure(arguments, arguments.stages[0])
    world = detect(os.environ, config.train.device, torch.cuda.device_count())
    sent = Sent(world.world_size)
    figures: dict[str, Any] = {}
    initialise(world)
    try:
        vocab_size, alone = arguments.vocab_size, config.train.global_rows // world.world_size
        share = config.model_copy(update={"train": config.train.model_copy(update={"global_rows": alone})})
        data = synthetic_steps(share, vocab_size)
        with TensorMemory(world.device) as memory:
            engines = build_engines(config, *build_networks(config, vocab_size, world.device, 1), world)
            for _ in range(WARM_UP_STEPS):
                train_step(engines, next(data), config, 1.0)
        seconds = []
        sent.bytes = 0.0
        for _ in range(arguments.steps):
            step, start = next(data), time.perf_counter()
            train_step(engines, step, config, 1.0)
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        figures = {
            "step_seconds": statistics.median(seconds),
            "peak_bytes": memory.peak_bytes,
            "sent_bytes": sent.bytes / arguments.steps,
        }
    except UserError as error:
        figures = {"refused": str(error)}
    finally:
        shutdown()
    if world.is_main:
        Path(arguments.worker).write_text(json.dumps(figures | {"device": device_name(world.device)}))


# --- all of them -----------------------------------------------------------------------------------------------------


def run_stage(arguments: argparse.Namespace, stage: int, folder: Path) -> dict[str, Any]:
    """Start the ranks of one stage and read what rank 0 wrote."""
    file = folder / f"{stage}.json"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {k: v for k, v in vars(arguments).items() if k not in ("stages", "worker", "json")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [sys.executable, __file__, *words, "--stages", str(stage), "--worker", str(file)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(arguments.processes)}
    ranks = [
        subprocess.Popen(command, env=os.environ | place | {"RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(arguments.processes)
    ]
    try:
        failed = sum(process.wait(timeout=arguments.limit) != 0 for process in ranks)
    finally:
        for process in ranks:
            process.kill()
    if failed or not file.exists():
        raise SystemExit(f"stage {stage}: a rank failed; its message is above")
    found: dict[str, Any] = json.loads(file.read_text())
    return found | predicted(arguments, stage)


def predicted(arguments: argparse.Namespace, stage: int) -> dict[str, float]:
    """What `electra-dist plan` says of the same."""
    config, world = configure(arguments, stage), arguments.processes
    kind = "cuda" if arguments.device == "cuda" else "cpu"
    sent = sum(plan.network_bytes(config, name, arguments.vocab_size, stage, world) for name in NETWORKS)
    return {
        "predicted_peak_bytes": plan.plan_memory(config, arguments.vocab_size, world, kind).peak,
        "predicted_sent_bytes": sent,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--vocab-size", type=int, default=30522)
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument("--micro-rows", type=int, default=8, help="rows of a micro-batch on each rank")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches of a step on each rank")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--stages", type=int, nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--processes", type=int, help="default: the machine's GPUs, or 2")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=300, help="seconds that a stage may take")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "auto":
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments.processes = arguments.processes or (torch.cuda.device_count() if arguments.device == "cuda" else 2)
    return arguments


def main() -> None:
    arguments = parse()
    if arguments.worker:
        return rank(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = {stage: run_stage(arguments, stage, Path(folder)) for stage in arguments.stages}
    device = next(iter(found.values()))["device"]
    print(
        f"{device} x {arguments.processes}, {arguments.preset}, {arguments.micro_rows} x {arguments.row_length} a rank,"
        f" accumulation {arguments.accumulation}, {arguments.precision}"
    )
    print(f"{'ZeRO':<6}{'step':>10}{'peak':>12}{'(planned)':>12}{'sent/step':>12}{'(planned)':>12}")
    for stage, figures in found.items():
        if "refused" in figures:
            print(f"{stage:<6}{figures['refused']}")
            continue
        names = ("peak_bytes", "predicted_peak_bytes", "sent_bytes", "predicted_sent_bytes")
        sizes = "".join(f"{figures[name] / 1e6:>9,.1f} MB" for name in names)
        print(f"{stage:<6}{figures['step_seconds']:>8.3f} s{sizes}")
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k not in ("json", "worker")}
        content = {"machine": device, "torch": torch.__version__, "settings": settings, "stages": found}
        arguments.json.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
