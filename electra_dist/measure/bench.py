"""The training step of a configuration, measured on this machine by one process: speed,
utilisation, memory, profile.

Comes in: a configuration and steps (from shards or synthetic). Goes out: `StepFigures`. The path is
that of `electra-dist train`: the same networks, engines and step; what is measured is what a run
will do.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from electra_dist import plan
from electra_dist.batch import Step
from electra_dist.config import NETWORKS, Config
from electra_dist.errors import UserError
from electra_dist.measure.tensor_memory import Held, TensorMemory
from electra_dist.model.attention.backends import described
from electra_dist.model.networks import build_networks
from electra_dist.parallel.hardware import product_rate
from electra_dist.parallel.world import World
from electra_dist.train.step import train_step
from electra_dist.train.window import squared_lengths
from electra_dist.zero.compatibility import release_deepspeed
from electra_dist.zero.engines import Engines, build_engines

#: Steps before the timed ones: optimizer state is made in the first,
#: and whatever compiles has compiled after them.
WARM_UP_STEPS = 3
#: Of them, those whose memory is recorded on CPU: from the second on, every step needs the same.
_RECORDED_STEPS = 2
_PROFILED_STEPS = 2
TRACE_FILE = "trace.json"
OPERATIONS_FILE = "operations.txt"


@dataclass(frozen=True)
class StepFigures:
    """What `steps` steps came to.

    real_tokens_per_s    non-padding tokens
    mfu                  `plan.step_flops` of these steps, over the time, over `matrix_product_rate`
    matrix_product_rate  of a warm device; cold_... of one that had nothing to do before
                         (`hardware.ProductRate`)
    peak_memory_bytes    live tensor memory above the baseline after imports, from building the
                         networks on
    predicted_bytes      what `electra-dist plan` says of the same
    attention, head      backends in use: of each network's attention, of the generator's output
                         layer
    """

    device: str
    torch: str
    precision: str
    compiled: bool
    attention: dict[str, str]
    head: str
    steps: int
    step_seconds: float
    step_seconds_range: tuple[float, float]
    real_tokens_per_s: float
    mfu: float
    matrix_product_rate: float
    cold_matrix_product_rate: float
    flops_per_token: float
    peak_memory_bytes: int
    predicted_bytes: float
    memory_at_peak: tuple[Held, ...]
    trace: str | None
    operations: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"memory_at_peak": [held._asdict() for held in self.memory_at_peak]}


def measure_steps(
    config: Config,
    vocab_size: int,
    data: Iterator[Step],
    world: World,
    steps: int,
    profile_dir: Path | None = None,
) -> StepFigures:
    """Train `WARM_UP_STEPS` and then `steps` timed steps of `data`; `world` is one process, its
    group open.

    With `profile_dir`, two more steps are profiled: a Chrome trace and a table by operation are
    written there. Raises `UserError` for several ranks, and whatever building the networks and
    engines raises.
    """
    if world.world_size != 1:
        raise UserError(
            f"bench step measures one process, found {world.world_size} ranks; run it alone on one"
            " of the nodes"
        )
    if steps < 1:
        raise UserError(f"`steps` {steps}: expected at least 1")
    with TensorMemory(world.device) as memory:
        engines = _engines(config, vocab_size, world)
        gc.collect()  # as the trainer does before its first step
        for _ in range(_RECORDED_STEPS):
            train_step(engines, next(data), config, 1.0)
    try:
        return _measure(engines, memory, config, vocab_size, data, steps, profile_dir)
    finally:
        engines.destroy()
        release_deepspeed()


def _measure(
    engines: Engines,
    memory: TensorMemory,
    config: Config,
    vocab_size: int,
    data: Iterator[Step],
    steps: int,
    profile_dir: Path | None,
) -> StepFigures:
    """The rest of the warm-up, the timed steps, the profile."""
    device = engines.world.device
    for _ in range(WARM_UP_STEPS - _RECORDED_STEPS):
        train_step(engines, next(data), config, 1.0)
    timed, seconds = _timed(engines, config, data, steps)
    trace = operations = None
    if profile_dir:
        trace, operations = _profile(engines, config, data, profile_dir)
    tokens = sum(step.real_count for step in timed)
    flops = _flops(config, vocab_size, timed)
    rate = product_rate(device, engines.compute_dtype)
    return StepFigures(
        device=device_name(device),
        torch=torch.__version__,
        precision="/".join(dict.fromkeys(config.precision_mode(network) for network in NETWORKS)),
        compiled=config.compiles(device.type),
        attention={
            name: described(str(getattr(engine.module, "attention_backend", "")))
            for name, engine in engines
        },
        head=str(getattr(engines.generator.module, "head_backend", "")),
        steps=steps,
        step_seconds=sum(seconds) / steps,
        step_seconds_range=(min(seconds), max(seconds)),
        real_tokens_per_s=tokens / sum(seconds),
        mfu=flops / sum(seconds) / rate.warm,
        matrix_product_rate=rate.warm,
        cold_matrix_product_rate=rate.cold,
        flops_per_token=flops / tokens,
        peak_memory_bytes=memory.peak_bytes,
        predicted_bytes=plan.plan_memory(
            config, vocab_size, 1, "cuda" if device.type == "cuda" else "cpu"
        ).peak,
        memory_at_peak=tuple(memory.largest()),
        trace=trace,
        operations=operations,
    )


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's kind and PyTorch's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _engines(config: Config, vocab_size: int, world: World) -> Engines:
    networks = build_networks(config, vocab_size, world.device, config.train.seed)
    return build_engines(config, *networks, world)


def _timed(
    engines: Engines, config: Config, data: Iterator[Step], steps: int
) -> tuple[list[Step], list[float]]:
    """The steps and the seconds of each, data included;
    the device is waited for at the end of each.
    """
    done = []
    seconds = []
    _wait(engines.world.device)
    for _ in range(steps):
        start = time.perf_counter()
        step = next(data)
        train_step(engines, step, config, 1.0)
        _wait(engines.world.device)
        seconds.append(time.perf_counter() - start)
        done.append(step)
    return done, seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _flops(config: Config, vocab_size: int, steps: list[Step]) -> float:
    squares = sum(squared_lengths(batch) for step in steps for batch in step.micro_batches)
    real = sum(step.real_count for step in steps)
    masked = sum(step.masked_count for step in steps)
    return plan.step_flops(config, vocab_size, real, squares, masked)


def _profile(
    engines: Engines, config: Config, data: Iterator[Step], folder: Path
) -> tuple[str, str]:
    """Write trace and table; returns (path of the trace, the table)."""
    cuda = engines.world.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`profile` {folder}: cannot be made: {error.strerror}") from error
    with profile(activities=activities) as recorded:
        for _ in range(_PROFILED_STEPS):
            train_step(engines, next(data), config, 1.0)
        _wait(engines.world.device)
    recorded.export_chrome_trace(str(folder / TRACE_FILE))
    if cuda:
        order = "self_device_time_total"
    else:
        order = "self_cpu_time_total"
    table: str = recorded.key_averages().table(
        sort_by=order, row_limit=25, max_name_column_width=50
    )
    (folder / OPERATIONS_FILE).write_text(table + "\n", encoding="utf-8")
    return str(folder / TRACE_FILE), table
