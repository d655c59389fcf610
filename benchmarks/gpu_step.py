"""Our step on this machine: against `transformers`, and with each optimisation switched off in turn.

    python benchmarks/gpu_step.py --json gpu_step.json                 base and large at 512, small at 128 (a GPU)
    python benchmarks/gpu_step.py --cases tiny:32:4 --device cpu       the same code, in a minute on a CPU

Each case is PRESET:ROW_LENGTH:ROWS, all rows at once, bf16 on a GPU and fp32 on a CPU, no dropout, ZeRO stage 1. Rows
are random tokens in whole documents, the same shapes for both; the peer is the loop of `train_speed.py` with the
attention that `transformers` chooses by itself (SDPA, whose flash kernel takes rows without padding). The utilisation
of all of them counts the same operations, those that the step needs (`electra_dist.plan.step_flops`), over the
matrix-product rate measured in the same run. Peers and whole steps come first, then the variants of each case, until
`--seconds` are over; what was left out is listed.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import train_speed

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import Config
from electra_dist.errors import UserError
from electra_dist.model import generator, head
from electra_dist.train.bench import device_name, measure_steps
from electra_dist.train.distributed import World, detect, initialise, shutdown
from electra_dist.train.hardware import matrix_product_rate
from electra_dist.train.synthetic import synthetic_steps
from electra_dist.train.tensor_memory import TensorMemory

VOCABULARY = 30522
PEER, WHOLE = "transformers", "electra-dist"


class Case(NamedTuple):
    """Sizes of one measurement."""

    preset: str
    length: int
    rows: int

    @classmethod
    def parse(cls, text: str) -> Case:
        preset, length, rows = text.split(":")
        return cls(preset, int(length), int(rows))

    def __str__(self) -> str:
        return f"{self.preset}, {self.rows} x {self.length}"


class Variant(NamedTuple):
    """Our step with `overrides` of the configuration and something of the program changed for as long as it runs."""

    overrides: tuple[str, ...] = ()
    change: Callable[[], AbstractContextManager[Any]] = nullcontext


@contextmanager
def head_backend(name: str) -> Iterator[None]:
    """The generator's output layer by another backend."""
    with mock.patch.object(generator, "masked_lm_head", functools.partial(head.masked_lm_head, backend=name)):
        yield


@contextmanager
def unfused_optimizer() -> Iterator[None]:
    """AdamW by PyTorch's loops over tensors instead of its fused kernel."""
    plain = torch.optim.AdamW

    def unfused(*values: Any, **keywords: Any) -> torch.optim.AdamW:
        return plain(*values, **(keywords | {"fused": False}))

    with mock.patch.object(torch.optim, "AdamW", unfused):
        yield


#: What is different from the whole step -> how.
VARIANTS: dict[str, Variant] = {
    WHOLE: Variant(),
    "without compilation": Variant(("train.compile=false",)),
    "attention: sdpa": Variant(("model.attention=sdpa",)),
    "attention: triton": Variant(("model.attention=triton",)),
    "head: all logits in memory": Variant(change=functools.partial(head_backend, "torch")),
    "head: chunked": Variant(change=functools.partial(head_backend, "chunked")),
    "optimizer not fused": Variant(change=unfused_optimizer),
    "fp32": Variant(("precision.mode=fp32",)),
    "ZeRO stage 3": Variant(("zero.stage=3",)),
    "layers checkpointed": Variant(("train.activation_checkpointing=true",)),
}


def configure(case: Case, device: str, overrides: tuple[str, ...] = ()) -> Config:
    tree: dict[str, Any] = {
        "data": {"shards": "none", "row_length": case.length, "streams": 1},
        "model": {"preset": case.preset, "max_positions": max(512, case.length)},
        "train": {"steps": 10**6, "global_rows": case.rows, "micro_rows": case.rows, "device": device},
        "optim": {"lr": 1e-4, "warmup_steps": 0},
        "zero": {"stage": 1},
        "precision": {"mode": "bf16" if device == "cuda" else "fp32"},
    }
    return configuration.build(configuration.apply_overrides(tree, overrides), "benchmark")


def ours(case: Case, name: str, world: World, steps: int) -> dict[str, Any]:
    """Our step in one variant; a variant that cannot run here says why."""
    variant = VARIANTS[name]
    try:
        config = configure(case, world.device.type, variant.overrides)
        with variant.change():
            figures = measure_steps(config, VOCABULARY, synthetic_steps(config, VOCABULARY), world, steps)
    except UserError as error:
        return {"refused": str(error)}
    found = figures.to_dict()
    kept = ("real_tokens_per_s", "mfu", "step_seconds", "peak_memory_bytes", "predicted_bytes", "attention", "compiled")
    return {key: found[key] for key in kept}


def peer(case: Case, name: str, world: World, steps: int) -> dict[str, Any]:
    """The plain `transformers` loop of `train_speed.py` on random full rows."""
    config = configure(case, world.device.type)
    rng = np.random.default_rng(0)
    rows = rng.integers(SPECIAL_TOKENS.mask + 1, VOCABULARY, (4 * case.rows, case.length))
    manifest: Any = SimpleNamespace(vocab_size=VOCABULARY)
    with mock.patch.object(train_speed, "full_rows", return_value=rows), TensorMemory(world.device) as memory:
        step = train_speed.plain_transformers(config, [], manifest, world.device)
        for _ in range(2):
            step()
    rate = train_speed.timed(step, steps, world.device)
    flops = plan.plan_run(config, VOCABULARY, 1, 1, "h100").flops_per_token
    machine = matrix_product_rate(world.device, torch.bfloat16 if world.device.type == "cuda" else torch.float32)
    return {
        "real_tokens_per_s": rate,
        "mfu": rate * flops / machine,
        "step_seconds": case.rows * case.length / rate,
        "peak_memory_bytes": memory.peak_bytes,
    }


def measured(case: Case, name: str, world: World, steps: int) -> dict[str, Any]:
    """One measurement, printed as it comes; running out of memory is a result too."""
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
    torch._dynamo.reset()
    try:
        found = (peer if name == PEER else ours)(case, name, world, steps)
    except torch.OutOfMemoryError:
        found = {"refused": "out of memory"}
    print(f"{case}: {name}: {line(found, None)}", file=sys.stderr, flush=True)
    return found


def line(figures: dict[str, Any], against: float | None) -> str:
    if "refused" in figures:
        return str(figures["refused"])
    text = f"{figures['real_tokens_per_s']:>12,.0f} tokens/s{figures['mfu']:>8.1%}"
    text += f"{figures['peak_memory_bytes'] / 1e9:>8.2f} GB"
    return text if against is None else f"{text}{figures['real_tokens_per_s'] / against:>8.2f} x"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ["base:512:64", "large:512:32", "small:128:512"]
    parser.add_argument(
        "--cases", nargs="+", default=default, metavar="PRESET:LENGTH:ROWS", help="default: %(default)s"
    )
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS)[1:], help="default: all of them")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--seconds", type=float, default=300, help="start nothing after so long")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    unknown = set(arguments.variants) - set(VARIANTS)
    if unknown:
        parser.error(f"unknown variants: {', '.join(unknown)}; known: {', '.join(list(VARIANTS)[1:])}")
    return arguments


def measure_all(arguments: argparse.Namespace, cases: list[Case], world: World) -> dict[str, dict[str, Any]]:
    """Everything, in the order of its weight, until the time is over."""
    end = time.monotonic() + arguments.seconds
    wanted = [(case, name) for case in cases for name in (PEER, WHOLE)]
    wanted += [(case, name) for case in cases for name in arguments.variants]
    results: dict[str, dict[str, Any]] = {str(case): {} for case in cases}
    for case, name in wanted:
        late = time.monotonic() > end
        results[str(case)][name] = (
            {"refused": "left out: time was over"} if late else measured(case, name, world, arguments.steps)
        )
    return results


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    world = detect({}, arguments.device, torch.cuda.device_count())
    initialise(world)
    results = measure_all(arguments, [Case.parse(text) for text in arguments.cases], world)
    dtype = torch.bfloat16 if world.device.type == "cuda" else torch.float32
    rate, machine = matrix_product_rate(world.device, dtype), device_name(world.device)
    shutdown()
    print(f"{machine}, torch {torch.__version__}, matrix products {rate / 1e12:,.4g} TFLOP/s ({dtype})")
    for case, figures in results.items():
        base = figures[PEER].get("real_tokens_per_s")
        print(f"{case}{'':<20}tokens/s, utilisation, peak, against {PEER}")
        for name, found in figures.items():
            print(f"    {name:<28}{line(found, base)}")
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        content = {"machine": machine, "torch": torch.__version__, "matrix_product_rate": rate, "settings": settings}
        text = json.dumps(content | {"cases": results}, indent=2, default=str)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
