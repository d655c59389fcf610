"""Time, memory and network of a step at every ZeRO stage, with offload and hierarchical
partitioning, on this machine.

    python benchmarks/zero_stages.py --preset small --processes 2 --json zero.json        CPU, gloo
    python benchmarks/zero_stages.py --preset small --processes 4 --nodes 2 --accumulation 2 --cases
    3 "3, hpZ"
    python benchmarks/zero_stages.py --preset base --row-length 512 --precision bf16      every GPU
                                                                                          of the
                                                                                          machine

All cases run one after the other in the same processes. `peak` is the live tensor memory of rank 0
above what was there before the case: GPU memory on CUDA; on a CPU all of it, what is offloaded
included. `sent` is what a rank sends in a step: every collective counts with the volume of its ring
algorithm. Both stand beside what `electra-dist plan` says. `host` is what a rank keeps in CPU
memory where there is a GPU, as planned. `--nodes` takes the ranks as lying on so many nodes, for
hpZ (groups of the ranks of a node); no network is in between. A case that cannot run here is listed
with the reason.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.config import NETWORKS, Config
from electra_dist.errors import UserError
from electra_dist.measure.bench import device_name
from electra_dist.measure.synthetic import synthetic_steps
from electra_dist.measure.tensor_memory import TensorMemory
from electra_dist.model.networks import build_networks
from electra_dist.parallel.group import close_group, leave, open_group
from electra_dist.parallel.world import World, detect
from electra_dist.train.step import train_step
from electra_dist.zero.engines import build_engines
from launcher.local import free_port

OFFLOAD = {"offload_optimizer": True}
#: What is measured -> keys of `zero`; hpZ gets the ranks of a node.
CASES: dict[str, dict[str, Any]] = {
    **{str(stage): {"stage": stage} for stage in range(4)},
    **{f"{stage}, optimizer offloaded": {"stage": stage} | OFFLOAD for stage in (1, 2, 3)},
    "3, parameters offloaded too": {"stage": 3, "offload_parameters": True} | OFFLOAD,
    "3, hpZ": {"stage": 3},
}
HPZ = "3, hpZ"
WARM_UP_STEPS = 2


def configure(arguments: argparse.Namespace, case: str) -> Config:
    zero = CASES[case] | {"communication_data_type": arguments.communication}
    if case == HPZ:
        zero["hpz_partition_size"] = arguments.processes // arguments.nodes
    rows = arguments.micro_rows * arguments.accumulation * arguments.processes
    tree = {
        "data": {
            "shards": "none",
            "row_length": arguments.row_length,
            "streams": arguments.processes,
        },
        "model": {"preset": arguments.preset, "max_positions": max(512, arguments.row_length)},
        "train": {
            "steps": 10**6,
            "global_rows": rows,
            "micro_rows": arguments.micro_rows,
            "device": arguments.device,
            "compile": False,
        },
        "optim": {"lr": 1e-4, "warmup_steps": 0},
        "zero": zero,
        "precision": {"mode": arguments.precision},
    }
    return configuration.build(tree, "benchmark")


# --- one rank -------------------------------------------------------------------------------------


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
    """Bytes that this rank sends in collectives, by the volume of ring algorithms:
    in all, and within hpZ's groups.
    """

    def __init__(self, world_size: int) -> None:
        self.bytes = self.group_bytes = 0.0
        self._world_size = world_size
        self._depth = 0
        for name, ((keyword, index), times) in COLLECTIVES.items():
            if hasattr(dist, name):
                setattr(dist, name, self._counted(getattr(dist, name), keyword, index, times))

    def clear(self) -> None:
        self.bytes = self.group_bytes = 0.0

    def _counted(
        self, function: Callable[..., Any], keyword: str, index: int, times: int
    ) -> Callable[..., Any]:
        def counted(*values: Any, **keywords: Any) -> Any:
            if keyword in keywords:
                whole = keywords[keyword]
            else:
                whole = values[index]
            if isinstance(whole, Tensor):
                tensors = [whole]
            else:
                tensors = whole
            if self._depth == 0:  # one collective may call another
                self._add(
                    times * sum(t.numel() * t.element_size() for t in tensors),
                    keywords.get("group"),
                )
            self._depth += 1
            try:
                return function(*values, **keywords)
            finally:
                self._depth -= 1

        return counted

    def _add(self, size: float, group: Any) -> None:
        ranks = dist.get_world_size(group)
        self.bytes += size * (ranks - 1) / ranks
        if ranks < self._world_size:
            self.group_bytes += size * (ranks - 1) / ranks


def rank(arguments: argparse.Namespace) -> None:
    """One rank of all cases: rank 0 writes the figures to `--worker`, after every case."""
    torch.set_num_threads(arguments.threads)
    world = detect(os.environ, arguments.device, torch.cuda.device_count())
    per_node = arguments.processes // arguments.nodes
    sent = Sent(world.world_size)
    found = dict[str, Any]()
    open_group(world)
    try:
        for case in arguments.cases:
            figures = measure(
                arguments, case, replace(world, local_rank=world.rank % per_node), sent
            )
            found[case] = figures | {"device": device_name(world.device)}
            if world.is_main:
                Path(arguments.worker).write_text(json.dumps(found))
    finally:
        close_group()


def measure(arguments: argparse.Namespace, case: str, world: World, sent: Sent) -> dict[str, Any]:
    """Train some steps of one case; seconds, bytes, or why it is refused."""
    gc.collect()
    try:
        config = configure(arguments, case)
        vocab_size = arguments.vocab_size
        alone = config.train.global_rows // world.world_size
        share = config.model_copy(
            update={"train": config.train.model_copy(update={"global_rows": alone})}
        )
        data = synthetic_steps(share, vocab_size)
        with TensorMemory(world.device) as memory:
            engines = build_engines(
                config, *build_networks(config, vocab_size, world.device, 1), world
            )
            for _ in range(WARM_UP_STEPS):
                train_step(engines, next(data), config, 1.0)
    except UserError as error:
        return {"refused": str(error)}
    seconds = []
    sent.clear()
    for _ in range(arguments.steps):
        step = next(data)
        start = time.perf_counter()
        train_step(engines, step, config, 1.0)
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "step_seconds": statistics.median(seconds),
        "peak_bytes": memory.peak_bytes,
        "sent_bytes": sent.bytes / arguments.steps,
        "group_bytes": sent.group_bytes / arguments.steps,
    }


# --- all of them ----------------------------------------------------------------------------------


def run_cases(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start the ranks and read what rank 0 wrote; what was measured before a failure is kept."""
    file = folder / "figures.json"
    settings = {k: v for k, v in vars(arguments).items() if k not in ("cases", "worker", "json")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [sys.executable, __file__, *words, "--worker", str(file), "--cases", *arguments.cases]
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(arguments.processes),
    }
    ranks = [
        subprocess.Popen(command, env=os.environ | place | {"RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(arguments.processes)
    ]
    deadline = time.monotonic() + arguments.limit
    try:
        for process in ranks:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        print(f"stopped after {arguments.limit:g} s; --limit gives more", file=sys.stderr)
    finally:
        for process in ranks:
            process.kill()
    found: dict[str, Any]
    if file.exists():
        found = json.loads(file.read_text())
    else:
        found = {}
    return {case: found[case] | predicted(arguments, case) for case in found}


def predicted(arguments: argparse.Namespace, case: str) -> dict[str, float]:
    """What `electra-dist plan` says of the same; nothing where the configuration is refused."""
    try:
        config = configure(arguments, case)
        world = arguments.processes
    except UserError:
        return {}
    kind: Literal["cpu", "cuda"]
    if arguments.device == "cuda":
        kind = "cuda"
    else:
        kind = "cpu"
    volumes = [
        plan.sent_bytes(config, name, arguments.vocab_size, config.stage(name), world)
        for name in NETWORKS
    ]
    memory = plan.plan_memory(config, arguments.vocab_size, world, kind)
    return {
        "predicted_peak_bytes": memory.peak,
        "predicted_host_bytes": plan.plan_memory(config, arguments.vocab_size, world, "cuda").host,
        "predicted_sent_bytes": sum(volume.total for volume in volumes),
        "predicted_group_bytes": sum(volume.groups for volume in volumes),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="small")
    parser.add_argument("--vocab-size", type=int, default=30522)
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument(
        "--micro-rows", type=int, default=8, help="rows of a micro-batch on each rank"
    )
    parser.add_argument(
        "--accumulation", type=int, default=1, help="micro-batches of a step on each rank"
    )
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument(
        "--communication",
        default="fp32",
        choices=("fp32", "bf16"),
        help="of gradients between ranks",
    )
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, help="default: all; hpZ from two nodes of two ranks on"
    )
    parser.add_argument("--processes", type=int, help="default: the machine's GPUs, or 2")
    parser.add_argument(
        "--nodes", type=int, default=1, help="nodes that the ranks are taken to lie on"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=600, help="seconds that all of it may take")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "auto":
        if torch.cuda.is_available():
            arguments.device = "cuda"
        else:
            arguments.device = "cpu"
    arguments.processes = arguments.processes or (
        torch.cuda.device_count() if arguments.device == "cuda" else 2
    )
    per_node, rest = divmod(arguments.processes, arguments.nodes)
    if rest:
        parser.error(
            f"--processes {arguments.processes} is not divisible by --nodes {arguments.nodes}"
        )
    possible = [case for case in CASES if case != HPZ or (arguments.nodes > 1 and per_node > 1)]
    arguments.cases = arguments.cases or possible
    if HPZ in arguments.cases and HPZ not in possible:
        parser.error(f"--cases '{HPZ}' needs at least --nodes 2 with two processes each")
    return arguments


def main() -> None:
    arguments = parse()
    if arguments.worker:
        rank(arguments)
        leave(0)
    with tempfile.TemporaryDirectory() as folder:
        found = run_cases(arguments, Path(folder))
    missing = [case for case in arguments.cases if case not in found]
    if not found:
        raise SystemExit("nothing was measured; the message of a rank is above")
    device = next(iter(found.values()))["device"]
    show(arguments, device, found)
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k not in ("json", "worker")}
        content = {
            "machine": device,
            "torch": torch.__version__,
            "settings": settings,
            "cases": found,
        }
        arguments.json.write_text(
            json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8"
        )
    if missing:
        raise SystemExit(f"not measured: {'; '.join(missing)}")
    return


def show(arguments: argparse.Namespace, device: str, found: dict[str, Any]) -> None:
    """The table."""
    print(
        f"{device} x {arguments.processes}, {arguments.preset}, {arguments.micro_rows} x"
        f" {arguments.row_length} a rank, accumulation {arguments.accumulation},"
        f" {arguments.precision}"
    )
    columns = {
        "peak": "peak_bytes",
        "(planned)": "predicted_peak_bytes",
        "host (pl.)": "predicted_host_bytes",
        "sent/step": "sent_bytes",
        "(planned) ": "predicted_sent_bytes",
    }
    if HPZ in found:
        columns |= {"in groups": "group_bytes", "(planned)  ": "predicted_group_bytes"}
    print(f"{'ZeRO':<29}{'step':>8}" + "".join(f"{name.strip():>12}" for name in columns))
    for case, figures in found.items():
        if "refused" in figures:
            print(f"{case:<29}{figures['refused']}")
            continue
        sizes = "".join(f"{figures[name] / 1e6:>9,.1f} MB" for name in columns.values())
        print(f"{case:<29}{figures['step_seconds']:>6.3f} s{sizes}")


if __name__ == "__main__":
    main()
