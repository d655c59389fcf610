"""What the host does for a micro-batch, at world sizes that nobody has at hand: DeepSpeed's own
work in Python.

    python benchmarks/host_time.py --json host.json
    python benchmarks/host_time.py --presets base --stages 3 --worlds 8 1024

On a GPU the host must have started the work of a micro-batch before the device has done it; what
DeepSpeed does for each parameter and each rank (gathering, cutting, reducing) is paid there. Here
rank 0 of a world of W ranks trains alone with collectives that do nothing, networks with a preset's
layers and very small matrices: what is left is the host's work. `host_ms_per_micro_batch` is what
one more micro-batch in a step takes, without what the same networks take by themselves. Each case
has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from attempts import write_json

from electra_dist import config as configuration
from electra_dist.config import NETWORKS, Config

VOCABULARY = 256
ROW_LENGTH = 16
SIZE = 64
FEW = 1
MANY = 3
MODES = {0: "fp32", 1: "bf16", 2: "bf16", 3: "bf16"}


def configure(preset: str, stage: int, world: int, accumulation: int) -> Config:
    """The layers of `preset`, everything else small."""
    layers = configuration.build(tree(preset, {}, stage, world, accumulation)).model
    sizes = {"hidden_size": SIZE, "heads": 1, "ffn_size": SIZE}
    model: dict[str, Any] = {
        name: {"layers": getattr(layers, name).layers} | sizes for name in NETWORKS
    }
    model |= {"embedding_size": SIZE, "max_positions": ROW_LENGTH}
    return configuration.build(tree(None, model, stage, world, accumulation))


def tree(
    preset: str | None, model: dict[str, Any], stage: int, world: int, accumulation: int
) -> dict[str, Any]:
    return {
        "data": {"shards": "none", "row_length": ROW_LENGTH, "streams": world},
        "model": model | ({"preset": preset} if preset else {}),
        "train": {
            "steps": 1000,
            "global_rows": world * accumulation,
            "micro_rows": 1,
            "compile": False,
        },
        "optim": {"warmup_steps": 0},
        "precision": {"mode": MODES[stage]},
        "zero": {"stage": stage},
    }


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Of the processor time, which other work on this machine does not change much."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


class Silent(dist.ProcessGroup):  # type: ignore[misc]
    """Collectives that do nothing (PyTorch's `fake` ones copy what each rank would have sent,
    one after the other).
    """

    def _done(self, *_: Any, **__: Any) -> Any:
        done: torch.futures.Future[None] = torch.futures.Future()
        done.set_result(None)
        return torch._C._distributed_c10d._create_work_from_future(done)

    allgather = allreduce = broadcast = barrier = _done
    _allgather_base = _reduce_scatter_base = _done
    all_gather_single = reduce_scatter_single = _done  # their names from torch 2.13

    def getBackendName(self) -> str:  # noqa: N802
        return "silent"


def open_silent_group(world: int) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ |= {
        "DS_ACCELERATOR": "cpu",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(world),
    }
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    dist.Backend.register_backend(
        "silent", lambda store, rank, size, timeout: Silent(rank, size), devices=["cpu"]
    )
    dist.init_process_group("silent", store=FakeStore(), rank=0, world_size=world)
    import deepspeed

    deepspeed.init_distributed(dist_backend="silent", auto_mpi_discovery=False, verbose=False)
    # On a CPU it starts a program to count devices, in every reduction.
    deepspeed.accelerator.get_accelerator().device_count = lambda: 1


def step_seconds(preset: str, stage: int, world: int, accumulation: int, repeats: int) -> float:
    """Of one step with so many micro-batches."""
    from electra_dist.measure.synthetic import synthetic_steps
    from electra_dist.model.networks import build_networks
    from electra_dist.parallel.world import World
    from electra_dist.train.step import train_step
    from electra_dist.zero import engines as engines_module

    config = configure(preset, stage, world, accumulation)
    networks = build_networks(config, VOCABULARY, "cpu", 1)
    with mock.patch.object(engines_module, "check_compilation"):  # the ranks would agree on it
        engines = engines_module.build_engines(config, *networks, World(world_size=world))
    own = config.model_copy(
        update={"train": config.train.model_copy(update={"global_rows": accumulation})}
    )
    steps = synthetic_steps(own, VOCABULARY)
    seconds = median_seconds(lambda: train_step(engines, next(steps), config, 1.0), repeats)
    engines.destroy()
    return seconds


def plain_seconds(preset: str, stage: int, repeats: int) -> float:
    """Forward and backward of both networks by themselves."""
    from electra_dist.measure.synthetic import synthetic_steps
    from electra_dist.model.backends import DTYPES
    from electra_dist.model.inputs import to_device
    from electra_dist.model.networks import build_networks

    config = configure(preset, stage, 1, 1)
    generator, discriminator = (
        n.to(DTYPES[MODES[stage]]) for n in build_networks(config, VOCABULARY, "cpu", 1)
    )
    steps = synthetic_steps(config, VOCABULARY)

    def train() -> None:
        batch = to_device(next(steps).micro_batches[0], "cpu")
        generated = generator(batch)
        judged = discriminator(generated.shared, batch, generated.corrupted, generated.replaced)
        (generated.loss_sum + judged.loss_sum).backward()

    return median_seconds(train, repeats)


def measure(preset: str, stage: int, world: int, repeats: int) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # what nothing was gathered into holds anything
    open_silent_group(world)
    few, many = (step_seconds(preset, stage, world, number, repeats) for number in (FEW, MANY))
    plain = plain_seconds(preset, stage, repeats)
    return {
        "host_ms_per_micro_batch": 1e3 * max((many - few) / (MANY - FEW) - plain, 0.0),
        "step_ms": 1e3 * few,
        "plain_ms": 1e3 * plain,
    }


def measure_apart(preset: str, stage: int, world: int, repeats: int) -> dict[str, Any]:
    """The same in a process of its own; why not, where it fails."""
    words = [
        sys.executable,
        __file__,
        "--one",
        preset,
        str(stage),
        str(world),
        "--repeats",
        str(repeats),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"refused": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=["base", "large"])
    parser.add_argument("--stages", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--worlds", nargs="+", type=int, default=[8, 128, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--one", nargs=3, metavar=("PRESET", "STAGE", "WORLD"), help="one case, as JSON"
    )
    arguments = parser.parse_args()
    if arguments.one:
        preset, stage, world = arguments.one
        print(json.dumps(measure(preset, int(stage), int(world), arguments.repeats)))
        return 0
    figures: dict[str, Any] = {"torch": torch.__version__, "host_ms_per_micro_batch": {}}
    print(f"{'preset':<8}{'stage':>6}{'world':>7}{'host ms':>10}{'networks ms':>13}")
    for preset in arguments.presets:
        for stage in arguments.stages:
            for world in arguments.worlds:
                found = measure_apart(preset, stage, world, arguments.repeats)
                figures["host_ms_per_micro_batch"].setdefault(preset, {}).setdefault(
                    str(stage), {}
                )[str(world)] = found.get("host_ms_per_micro_batch", found)
                shown = (
                    found.get("refused")
                    or f"{found['host_ms_per_micro_batch']:>10.1f}{found['plain_ms']:>13.1f}"
                )
                print(f"{preset:<8}{stage:>6}{world:>7}{shown}", flush=True)
                write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
